# shellcheck shell=bash
# What launch/delete.sh does.

delete_all() {
  parse_options ' name engine project zone workdir cluster namespace yes dry_run ' "$@"
  ENGINE=${ENGINE:-queued-resources} NAMESPACE=${NAMESPACE:-default}
  is_one_of "$ENGINE" queued-resources gke local \
    || usage_error "--engine must be queued-resources, gke or local, not '$ENGINE'"
  if ((${#POSITIONAL[@]} == 1)) && [[ -z $NAME || $NAME == "${GPICL_NAME:-}" ]]; then NAME=${POSITIONAL[0]}; fi
  ((${#POSITIONAL[@]} <= 1)) || usage_error "one name at a time, not '${POSITIONAL[*]}'"
  require_option name
  require_name name
  case $ENGINE in
    queued-resources)
      check_place
      _delete_slices
      ;;
    gke)
      gke_options
      _delete_jobsets
      ;;
    local)
      require_option workdir "with --engine local"
      check_workdir
      _delete_workers
      ;;
  esac
}

# Asks once. _confirm WHAT...
_confirm() {
  local answer
  printf 'to be deleted: %s\n' "$*"
  [[ -z $YES && -z $DRY_RUN ]] || return 0
  [[ -t 0 ]] || usage_error "nobody can answer here; --yes deletes without asking"
  read -r -p 'delete? [y/N] ' answer
  [[ $answer == [yY]* ]] || failure "nothing was deleted"
}

_delete_slices() {
  local ids=() id state failed=''
  if [[ -n $DRY_RUN ]]; then
    printf '# For every number behind the name that the list shows\n'
    list_command
    show_command "${LIST[@]}"
    delete_command N
    show_command "${DELETE[@]}"
    return 0
  fi
  list_slices || failure "$GCLOUD_ERROR"
  while read -r id state; do
    if [[ -n $id && $state != DELETING ]]; then ids+=("$id"); fi
  done <<< "$SLICES"
  ((${#ids[@]})) || { say "no slices of the name $NAME" && return 0; }
  _confirm "${ids[@]}"
  for id in "${ids[@]}"; do
    say "$id: deleting"
    delete_slice "${id##*-}" || failed=yes
  done
  [[ -z $failed ]] || exit 1
}

_delete_jobsets() {
  local command=(delete 'jobset,configmap' -l "gpicl-launch=$NAME" --ignore-not-found)
  if [[ -n $DRY_RUN ]]; then
    show_command "${KUBECTL[@]}" "${command[@]}"
    return 0
  fi
  _kubectl get jobset -l "gpicl-launch=$NAME" -o name || failure "kubectl: $KUBECTL_ERROR"
  [[ -n $KUBECTL_OUTPUT ]] || { say "no JobSets of the name $NAME" && return 0; }
  # shellcheck disable=SC2086
  _confirm $KUBECTL_OUTPUT
  _kubectl "${command[@]}" || failure "kubectl: $KUBECTL_ERROR"
  say "$NAME: deleted"
}

# Workers save before they end, so this waits for them.
_delete_workers() {
  local shards=() shard pid
  while IFS= read -r shard; do
    if live_worker "$shard" > /dev/null; then shards+=("$shard"); fi
  done < <(shards_with_pids)
  ((${#shards[@]})) || { say "no workers of the name $NAME" && return 0; }
  _confirm "${shards[@]/#/$NAME-}"
  for shard in "${shards[@]}"; do
    pid=$(live_worker "$shard") && run kill -TERM "$pid" || true
  done
  [[ -z $DRY_RUN ]] || return 0
  for shard in "${shards[@]}"; do
    while live_worker "$shard" > /dev/null; do pause 0.2; done
    rm -f "$(pid_path "$shard")"
    say "$NAME-$shard: stopped"
  done
}
