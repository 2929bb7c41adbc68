# shellcheck shell=bash
# The engine for Cloud TPU VMs: keeps a slice alive for every shard until its result is there. It holds no state that it
# could lose: what is done is read from the markers in the working folder, and what exists from gcloud.

readonly ERRORS_IN_A_ROW=30 # of asking for one slice's state, before giving up
readonly LONG_LIFE=1800     # seconds; a slice that lived so long does not count as lost at once

# Of each shard: PHASE is new, exists, deleting, finished or failed; the others are what was seen last.
declare -a RESULT STATE LOSSES ERRORS CREATED_AT ACTIVE_AT DELETED_AT

run_queued_resources() {
  local shard
  PREPARED=''
  if [[ -n $DRY_RUN ]]; then
    _show_queued_resources
    return 0
  fi
  trap '_interrupted 130' INT
  trap '_interrupted 143' TERM HUP
  for ((shard = 1; shard <= NUM_SLICES; shard++)); do _look_at_first "$shard"; done
  trap _say_what_is_left EXIT
  for ((shard = 1; shard <= NUM_SLICES; shard++)); do _settle "$shard"; done
  while true; do
    for ((shard = 1; shard <= NUM_SLICES; shard++)); do _advance "$shard"; done
    any_phase new exists deleting || break
    pause "$POLL_SECONDS"
  done
  _summary
}

_show_queued_resources() {
  local shard
  printf '# The package, the base datasets, and the start-up script of every slice\n'
  upload_package
  upload_datasets
  write_startup_scripts
  printf '# A slice for each shard; again whenever one is suspended, failed or gone before its result is there\n'
  for ((shard = 1; shard <= NUM_SLICES; shard++)); do
    create_command "$shard"
    show_command "${CREATE[@]}"
  done
  printf '# At the end of each shard, and on Ctrl-C\n'
  [[ -z $KEEP ]] || printf '# (not with --keep)\n'
  for ((shard = 1; shard <= NUM_SLICES; shard++)); do
    delete_command "$shard"
    show_command "${DELETE[@]}"
  done
}

# Reads what an earlier call has left, into RESULT and STATE; a slice that does something else is an error.
_look_at_first() {
  local shard=$1 try
  PHASE[shard]=new LOSSES[shard]=0 ERRORS[shard]=0 CREATED_AT[shard]=$SECONDS ACTIVE_AT[shard]=''
  RESULT[shard]=$(read_file "$(marker_path "$shard")") || RESULT[shard]=''
  for ((try = 1; ; try++)); do
    if describe_slice "$shard"; then break; fi
    ((try < 5)) || failure "gcloud does not say whether $(slice_id "$shard") exists: $GCLOUD_ERROR"
    pause "$POLL_SECONDS"
  done
  STATE[shard]=$SLICE_STATE
  if [[ $SLICE_STATE != NONE ]] && ! _is_done "${RESULT[shard]}"; then _check_submission "$shard"; fi
}

# A result of the same payload counts, any other is removed; a slice is adopted.
_settle() {
  local shard=$1 id
  id=$(slice_id "$shard")
  if _is_done "${RESULT[shard]}"; then
    say "$id: done already ($(marker_path "$shard"); remove it to run again)"
    if [[ ${STATE[shard]} != NONE && -z $KEEP ]]; then _delete "$shard" "it is not needed any more"; fi
    PHASE[shard]=finished
    return 0
  fi
  if [[ ${STATE[shard]} != NONE ]]; then
    PHASE[shard]=exists
    say "$id: there already, ${STATE[shard]}"
    # A slice that left a result has ended, and waits for nothing.
    if _is_ours "${RESULT[shard]}"; then _delete "$shard" "its last try failed"; fi
  fi
  if [[ -n ${RESULT[shard]} ]]; then remove_file "$(marker_path "$shard")" > /dev/null 2>&1 || true; fi
}

_is_done() { _is_ours "$1" && [[ $(value_of exit_code "$1") == 0 ]]; }

_is_ours() { [[ -n $1 && $(value_of digest "$1") == "$DIGEST" ]]; }

_check_submission() {
  local submitted
  submitted=$(read_file "$(submission_path "$1")") || return 0
  [[ $(value_of digest "$submitted") == "$DIGEST" ]] || usage_error "$(slice_id "$1") exists and was started with" \
    "other arguments or other code; wait for it, delete it (launch/delete.sh --name $NAME), or take another --name"
}

# One look at a shard, and the step that follows from it.
_advance() {
  local shard=$1 result
  case ${PHASE[shard]} in finished | failed) return 0 ;; esac
  if [[ ${PHASE[shard]} == exists ]] && ! _is_waiting "$shard"; then
    if result=$(read_file "$(marker_path "$shard")") && _is_ours "$result"; then
      _finish "$shard" "$result"
      return 0
    fi
  fi
  if ! describe_slice "$shard"; then
    ERRORS[shard]=$((ERRORS[shard] + 1))
    if ((ERRORS[shard] == 1)); then warn "$(slice_id "$shard"): $GCLOUD_ERROR; asking again"; fi
    if ((ERRORS[shard] >= ERRORS_IN_A_ROW)); then _fail "$shard" "gcloud does not answer: $GCLOUD_ERROR"; fi
    return 0
  fi
  ERRORS[shard]=0
  case ${PHASE[shard]}:$SLICE_STATE in
    new:NONE | deleting:NONE)
      PHASE[shard]=new
      if (($(count_phases exists deleting) < MAX_PARALLEL)); then _create "$shard"; fi
      ;;
    deleting:*) # gone soon; but what --async began can fail unseen
      if ((SECONDS - DELETED_AT[shard] > 300)); then _delete "$shard" "again"; fi
      ;;
    new:*)
      PHASE[shard]=exists
      say "$(slice_id "$shard"): there already, $SLICE_STATE"
      ;;
    exists:NONE)
      if _lost "$shard" "is gone"; then PHASE[shard]=new; fi
      ;;
    exists:SUSPENDED | exists:FAILED)
      if _lost "$shard" "is $SLICE_STATE"; then _delete "$shard" "to make it anew"; fi
      ;;
    *) _watch "$shard" ;;
  esac
}

_is_waiting() { is_one_of "${STATE[$1]}" CREATING ACCEPTED WAITING_FOR_RESOURCES PROVISIONING; }

_create() {
  local shard=$1
  if [[ -z $PREPARED ]]; then
    upload_package
    upload_datasets
    write_startup_scripts
    PREPARED=yes
  fi
  printf 'digest=%s\n' "$DIGEST" > "$STATE_FOLDER/$(slice_id "$shard").submitted"
  copy_file "$STATE_FOLDER/$(slice_id "$shard").submitted" "$(submission_path "$shard")" > /dev/null 2>&1 \
    || { _fail "$shard" "cannot write to $WORKDIR" && return 0; }
  PHASE[shard]=exists # from here on Ctrl-C has to delete it
  create_slice "$shard"
  CREATED_AT[shard]=$SECONDS ACTIVE_AT[shard]='' STATE[shard]=''
  case $CREATED in
    created) say "$(slice_id "$shard"): requested" ;;
    adopted) say "$(slice_id "$shard"): there already" ;;
    refused) _fail "$shard" "$GCLOUD_ERROR" ;;
    later)
      if _lost "$shard" "could not be requested ($GCLOUD_ERROR)"; then PHASE[shard]=new; fi
      ;;
  esac
}

# A slice that is neither lost nor finished: says what changes, and gives up on one that never comes.
_watch() {
  local shard=$1
  if [[ ${STATE[shard]} != "$SLICE_STATE" ]]; then
    STATE[shard]=$SLICE_STATE
    say "$(slice_id "$shard"): $SLICE_STATE"
  fi
  if [[ $SLICE_STATE == ACTIVE ]]; then
    ACTIVE_AT[shard]=${ACTIVE_AT[shard]:-$SECONDS}
  elif [[ -z ${ACTIVE_AT[shard]} && -n $WAIT_SECONDS ]] && ((SECONDS - CREATED_AT[shard] >= ${WAIT_SECONDS%.*})); then
    _fail "$shard" "not ACTIVE within $WAIT_SECONDS seconds (--wait_seconds)"
  fi
}

# Counts a loss, unless the slice had lived long; fails when there were too many in a row.
_lost() {
  local shard=$1
  if [[ -n ${ACTIVE_AT[shard]} ]] && ((SECONDS - ACTIVE_AT[shard] > LONG_LIFE)); then LOSSES[shard]=0; fi
  LOSSES[shard]=$((LOSSES[shard] + 1))
  if ((LOSSES[shard] > MAX_RESTARTS)); then
    _fail "$shard" "$2; lost ${LOSSES[shard]} times in a row (--max_restarts $MAX_RESTARTS)"
    return 1
  fi
  say "$(slice_id "$shard"): $2; trying again (${LOSSES[shard]} of at most $MAX_RESTARTS times in a row)"
}

_finish() {
  local shard=$1 code
  code=$(value_of exit_code "$2")
  if [[ $code == 0 ]]; then
    say "$(slice_id "$shard"): done"
    PHASE[shard]=finished
    _release "$shard"
  else
    _fail "$shard" "gpicl ended with exit code $code: $(value_of why "$2")"
    _show_log "$shard"
  fi
}

_show_log() {
  local log
  log=$WORKDIR/.launch/$(slice_id "$1").host0.log
  printf -- '--- the end of %s\n' "$log"
  read_file "$log" | tail -n 20 || true
  printf -- '---\n'
}

_fail() {
  warn "$(slice_id "$1"): $2"
  PHASE[$1]=failed
  _release "$1"
}

_release() {
  if [[ -n $KEEP ]]; then
    say "$(slice_id "$1"): kept (--keep)"
  else
    delete_slice "$1" || true
  fi
}

_delete() {
  say "$(slice_id "$1"): deleting, $2"
  PHASE[$1]=deleting DELETED_AT[$1]=$SECONDS
  delete_slice "$1" || true
}

# However this ends: slices cost money.
_say_what_is_left() {
  local shard
  for shard in "${!PHASE[@]}"; do
    if is_one_of "${PHASE[shard]}" exists && [[ -z $KEEP ]]; then
      warn "$(slice_id "$shard") is left; launch/delete.sh --name $NAME --project $PROJECT --zone $ZONE deletes it"
    fi
  done
}

# Ctrl-C: what exists is deleted.
_interrupted() {
  local shard
  trap '' INT TERM HUP # the second Ctrl-C must not leave slices behind
  printf '\n'
  for ((shard = 1; shard <= NUM_SLICES; shard++)); do
    if [[ ${PHASE[shard]:-} == exists ]]; then
      if [[ -n $KEEP ]]; then
        say "$(slice_id "$shard"): kept (--keep); launch/delete.sh --name $NAME deletes it"
      else
        say "$(slice_id "$shard"): deleting"
        if delete_slice "$shard"; then PHASE[shard]=deleting; fi
      fi
    fi
  done
  say "interrupted; the same command goes on where this stopped"
  exit "$1"
}

_summary() {
  local failed
  failed=$(count_phases failed)
  say "$(count_phases finished) of $NUM_SLICES shards done${KEEP:+; slices are kept, launch/delete.sh --name $NAME deletes them}"
  if ((failed)); then exit 1; fi
}
