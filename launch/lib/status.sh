# shellcheck shell=bash
# What launch/status.sh shows.

show_status() {
  local failed=''
  parse_options ' name engine project zone workdir scale gin_bindings only cluster namespace log ' "$@"
  ENGINE=${ENGINE:-queued-resources} NAMESPACE=${NAMESPACE:-default}
  is_one_of "$ENGINE" queued-resources gke local \
    || usage_error "--engine must be queued-resources, gke or local, not '$ENGINE'"
  if [[ -z $NAME ]]; then
    ((${#POSITIONAL[@]})) || usage_error "--name is needed, or the gin file of the sweep"
    NAME=$(name_of_file "${POSITIONAL[0]}")
  fi
  require_name name
  if [[ -n $WORKDIR ]]; then
    check_workdir
  elif [[ $ENGINE == local ]] || ((${#POSITIONAL[@]})); then
    usage_error "--workdir is needed, to read the run folders"
  fi
  case $ENGINE in
    queued-resources)
      check_place
      _status_of_slices || failed=yes
      ;;
    gke)
      gke_options
      _kubectl get jobset -l "gpicl-launch=$NAME" \
        || { warn "kubectl: $KUBECTL_ERROR" && failed=yes; }
      printf '%s\n' "${KUBECTL_OUTPUT:-no JobSets of the name $NAME}"
      ;;
    local) _status_of_workers ;;
  esac
  if [[ -n $WORKDIR ]]; then _status_of_results; fi
  if ((${#POSITIONAL[@]})); then _status_of_runs || failed=yes; fi
  [[ -z $failed ]] || exit 1
}

_status_of_slices() {
  local slices id state
  list_slices || { warn "$GCLOUD_ERROR" && return 1; }
  slices=$SLICES
  [[ -n $slices ]] || { printf 'no slices of the name %s\n' "$NAME" && return 0; }
  while read -r id state; do
    printf '%-42s %s\n' "$id" "$state"
    if [[ -n $LOG && $state == ACTIVE ]]; then _log_of_slice "$id" || true; fi
  done <<< "$slices"
}

# The one use of ssh; it fails now and then, so it is tried again.
_log_of_slice() {
  local try
  for ((try = 1; try <= 3; try++)); do
    if _call gcloud compute tpus tpu-vm ssh "$1" --project="$PROJECT" --zone="$ZONE" --worker=0 \
      --command="sudo tail -n 20 /var/lib/gpicl/$1.log" < /dev/null; then
      printf '%s\n' "$GCLOUD_OUTPUT"
      return 0
    fi
    ((try == 3)) || sleep 1
  done
  warn "the log of $1 could not be read: $GCLOUD_ERROR"
  return 1
}

_status_of_workers() {
  local shard pid any=''
  while IFS= read -r shard; do
    any=yes
    if pid=$(live_worker "$shard"); then
      printf '%-42s running, process %s, log in %s\n' "$NAME-$shard" "$pid" "$(log_path "$shard")"
    else
      printf '%-42s not running, log in %s\n' "$NAME-$shard" "$(log_path "$shard")"
    fi
  done < <(shards_with_pids)
  [[ -n $any ]] || printf 'no workers of the name %s\n' "$NAME"
}

_status_of_results() {
  local path result
  while IFS= read -r path; do
    if result=$(read_file "$path"); then
      printf '%-42s ended with exit code %s at %s: %s\n' "$(basename "$path" .result)" "$(value_of exit_code "$result")" \
        "$(value_of finished "$result")" "$(value_of why "$result")"
    fi
  done < <(list_files "$WORKDIR/.launch/$NAME-*.result")
}

_status_of_runs() {
  local gpicl=$ROOT/.venv/bin/gpicl
  [[ -x $gpicl ]] || gpicl=$(command -v gpicl) || { warn "no gpicl in $ROOT/.venv or on PATH to read the run folders" && return 1; }
  STACK=''
  build_payload sweep "${POSITIONAL[@]}"
  local_gin_arguments
  "$gpicl" sweep "${LOCAL_GIN_ARGUMENTS[@]}" ${ONLY:+--only "$ONLY"} --workdir "$WORKDIR" --status
}
