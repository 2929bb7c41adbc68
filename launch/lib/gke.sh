# shellcheck shell=bash
# The engine for GKE: submits what is missing. JobSet restarts and Kueue queues; nothing has to run here meanwhile.

run_gke() {
  local shard path
  path=$STATE_FOLDER/kueue.yaml
  if [[ -n $DRY_RUN ]]; then
    printf '# The queue, where the cluster has no LocalQueue %s\n' "$QUEUE"
    kueue_manifest | write_file "$path"
    show_command "${KUBECTL[@]}" apply -f "$path"
    printf '# A JobSet for each shard\n'
    for ((shard = 1; shard <= NUM_SLICES; shard++)); do _submit "$shard"; done
    _show_alternative
    return 0
  fi
  mkdir -p "$STATE_FOLDER"
  _look_at_jobsets
  ((${#MISSING[@]})) || { _gke_summary && return 0; }
  if ! _kubectl get localqueue "$QUEUE" -o name; then
    [[ $KUBECTL_ERROR == *NotFound* ]] || failure "kubectl: $KUBECTL_ERROR"
    kueue_manifest | write_file "$path"
    _kubectl apply -f "$path" || failure "the queue could not be made: $KUBECTL_ERROR"
    say "queue $QUEUE: made, for $((CHIPS * MAX_PARALLEL)) chips"
  fi
  for shard in "${MISSING[@]}"; do _submit "$shard"; done
  _show_alternative
  _gke_summary
}

gke_options() {
  KUBECTL=(kubectl)
  if [[ -n $CLUSTER ]]; then
    require_option project "with --cluster"
    require_option zone "with --cluster (for a regional cluster, its region)"
    KUBECTL+=(--context="gke_${PROJECT}_${ZONE}_$CLUSTER") # the name that \`gcloud container clusters get-credentials\` gives
  fi
  KUBECTL+=(--namespace="$NAMESPACE")
}

# Sets MISSING: shards without a JobSet, or with one that failed or was of another payload and has ended.
_look_at_jobsets() {
  local shard id state digest ended=()
  MISSING=()
  for ((shard = 1; shard <= NUM_SLICES; shard++)); do
    id=$(slice_id "$shard")
    if ! _kubectl get jobset "$id" -o 'jsonpath={.metadata.labels.gpicl-digest} {.status.terminalState}'; then
      [[ $KUBECTL_ERROR == *NotFound* ]] || failure "kubectl: $KUBECTL_ERROR"
      MISSING+=("$shard")
      continue
    fi
    read -r digest state <<< "$KUBECTL_OUTPUT" || true
    case $state in
      Completed)
        if [[ $digest == "$DIGEST" ]]; then
          say "$id: done already"
        else
          ended+=("$id")
          MISSING+=("$shard")
        fi
        ;;
      Failed)
        ended+=("$id")
        MISSING+=("$shard")
        ;;
      *)
        [[ $digest == "$DIGEST" ]] || usage_error "$id exists and was started with other arguments or another image;" \
          "wait for it, delete it (launch/delete.sh --engine gke --name $NAME), or take another --name"
        say "$id: there already, not ended yet"
        ;;
    esac
  done
  for id in "${ended[@]}"; do
    say "$id: deleting, it failed or was of other arguments"
    _kubectl delete jobset "$id" --ignore-not-found --wait=true || failure "$id could not be deleted: $KUBECTL_ERROR"
  done
}

_submit() {
  local path
  path=$STATE_FOLDER/$(slice_id "$1").yaml
  jobset_manifest "$1" | sed '/^$/d' | write_file "$path"
  if [[ -n $DRY_RUN ]]; then
    show_command "${KUBECTL[@]}" apply -f "$path"
  else
    _kubectl apply -f "$path" || failure "$(slice_id "$1") could not be submitted: $KUBECTL_ERROR"
    say "$(slice_id "$1"): submitted, $path"
  fi
}

# The same with xpk. It counts restarts after 42 as well, so it is given many.
_show_alternative() {
  local shard command arguments
  if ((${#FILES[@]})); then
    printf '# (xpk would need an image that holds %s)\n' "${FILES[0]}"
    return 0
  fi
  printf '# Or, in a cluster made by xpk:\n'
  for ((shard = 1; shard <= NUM_SLICES; shard++)); do
    arguments=(gpicl "${ARGUMENTS[@]}")
    if [[ ${ARGUMENTS[0]} == sweep ]]; then arguments+=(--shard "$shard/$NUM_SLICES"); fi
    if [[ -n $DATA_DIR ]]; then arguments=(env "TFDS_DATA_DIR=$DATA_DIR" "${arguments[@]}"); fi
    command=(xpk workload create --workload="$(slice_id "$shard")" --cluster="${CLUSTER:-CLUSTER}"
      --tpu-type="$ACCELERATOR_TYPE" --num-slices=1 --docker-image="$IMAGE" --command="$(show_command "${arguments[@]}")"
      --max-restarts=100 --restart-on-exit-codes=42)
    if [[ -n $PROJECT ]]; then command+=(--project="$PROJECT"); fi
    if [[ -n $ZONE ]]; then command+=(--zone="$ZONE"); fi
    if [[ -n $SPOT ]]; then command+=(--spot); fi
    printf '# %s\n' "$(show_command "${command[@]}")"
  done
}

_gke_summary() { say "watch with launch/status.sh --engine gke --name $NAME; launch/delete.sh --engine gke --name $NAME ends it"; }

_kubectl() {
  local code=0 errors
  errors=$(mktemp)
  KUBECTL_OUTPUT=$("${KUBECTL[@]}" "$@" 2> "$errors") || code=$?
  KUBECTL_ERROR=$(tail -n 1 "$errors")
  rm -f "$errors"
  return "$code"
}
