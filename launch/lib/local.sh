# shellcheck shell=bash
# The engine for this machine: one worker process a shard, started again when it dies, on the CPU backend unless
# JAX_PLATFORMS says otherwise.

readonly QUICK_DEATHS=100 # by signals, each within a minute of its start, before giving up

declare -a PID OURS STARTED FAILURES DEATHS CORES

run_local() {
  local shard
  STOPS=0 STOP_CODE=0 ANY_USAGE_ERROR=''
  _choose_gpicl
  if [[ -n $DATA_DIR ]]; then export TFDS_DATA_DIR=$DATA_DIR; fi
  if [[ -n $DRY_RUN ]]; then
    printf '# A worker for each shard, started again until it ends with 0 or 2, or too often with another code.\n'
    printf '# Where taskset is, each has a share of the CPU cores for itself.\n'
    show_command mkdir -p "$WORKDIR/.launch"
    for ((shard = 1; shard <= NUM_SLICES; shard++)); do
      _worker_command "$shard"
      printf '%sJAX_PLATFORMS=%s %s >> %s 2>&1 &\n' "${DATA_DIR:+TFDS_DATA_DIR=$(shell_word "$DATA_DIR") }" \
        "${JAX_PLATFORMS:-cpu}" "$(show_command "${WORKER_COMMAND[@]}")" \
        "$(shell_word "$(log_path "$shard")")"
    done
    return 0
  fi
  mkdir -p "$WORKDIR/.launch" || usage_error "cannot make $WORKDIR/.launch"
  trap 'STOPS=$((STOPS + 1)) STOP_CODE=130' INT
  trap 'STOPS=$((STOPS + 1)) STOP_CODE=143' TERM HUP
  mapfile -t CORES < <(usable_cores "$$")
  for ((shard = 1; shard <= NUM_SLICES; shard++)); do
    PHASE[shard]=new FAILURES[shard]=0 DEATHS[shard]=0
    _adopt "$shard"
  done
  while true; do
    if ((STOPS)); then _stop_workers; fi
    for ((shard = 1; shard <= NUM_SLICES; shard++)); do _advance_worker "$shard"; done
    any_phase new running || break
    pause "$POLL_SECONDS"
  done
  if ((STOPS)); then
    say "stopped; the same command goes on where this stopped"
    exit "$STOP_CODE"
  fi
  _local_summary
}

_choose_gpicl() {
  GPICL=$ROOT/.venv/bin/gpicl
  case $PACKAGE in
    '') [[ -x $GPICL ]] || GPICL=$(command -v gpicl) || usage_error "no gpicl in $ROOT/.venv or on PATH; \`make install\` makes it" ;;
    preinstalled) GPICL=$(command -v gpicl) || usage_error "--package preinstalled: there is no gpicl on PATH" ;;
    *) usage_error "--package '$PACKAGE' is for slices; here gpicl comes from $ROOT/.venv, or from PATH with preinstalled" ;;
  esac
}

_worker_command() {
  WORKER_COMMAND=("$GPICL" "${ARGUMENTS[0]}" "${LOCAL_GIN_ARGUMENTS[@]}" --workdir "$WORKDIR")
  [[ ${ARGUMENTS[0]} == sweep ]] || return 0
  if [[ -n $ONLY ]]; then WORKER_COMMAND+=(--only "$ONLY"); fi
  if [[ -n $STACK ]]; then WORKER_COMMAND+=(--stack "$STACK"); fi
  WORKER_COMMAND+=(--shard "$1/$NUM_SLICES")
}

_adopt() {
  local pid
  if pid=$(live_worker "$1"); then
    PHASE[$1]=running PID[$1]=$pid OURS[$1]='' STARTED[$1]=$SECONDS
    say "$NAME-$1: adopted, process $pid"
  fi
}

# Sets WORKER_CORES to the CPU cores of a worker's own, or to nothing where there are not enough. Threads of one program wait for
# each other: two workers that share two cores took three times as long.
_own_cores() {
  local workers=$((NUM_SLICES < MAX_PARALLEL ? NUM_SLICES : MAX_PARALLEL)) share slot shard taken=' '
  WORKER_CORES=''
  share=$((${#CORES[@]} / workers))
  if ((workers == 1 || share == 0)); then return 0; fi
  for shard in "${!PID[@]}"; do
    if [[ ${PHASE[shard]} == running ]]; then taken+="$(usable_cores "${PID[shard]}" | head -n 1) "; fi
  done
  for ((slot = 0; slot < workers; slot++)); do
    if [[ $taken != *" ${CORES[slot * share]} "* ]]; then
      WORKER_CORES=$(IFS=, && printf '%s' "${CORES[*]:slot * share:share}")
      return 0
    fi
  done
}

_start() {
  local cores=()
  _worker_command "$1"
  _own_cores
  if [[ -n $WORKER_CORES ]]; then cores=(taskset -c "$WORKER_CORES"); fi
  start_worker "$1" "${cores[@]}" "${WORKER_COMMAND[@]}"
  PHASE[$1]=running PID[$1]=$WORKER OURS[$1]=yes STARTED[$1]=$SECONDS
  say "$NAME-$1: process $WORKER, log in $(log_path "$1")"
}

_advance_worker() {
  local shard=$1 code=0
  if [[ ${PHASE[shard]} == new ]]; then
    if ((STOPS)); then
      PHASE[shard]=stopped
    elif (($(count_phases running) < MAX_PARALLEL)); then
      _start "$shard"
    fi
    return 0
  fi
  [[ ${PHASE[shard]} == running ]] || return 0
  if kill -0 "${PID[shard]}" 2> /dev/null && live_worker "$shard" > /dev/null; then return 0; fi
  if [[ -n ${OURS[shard]} ]]; then
    wait "${PID[shard]}" 2> /dev/null || code=$?
  else
    code=unknown # another call of this script had started it
  fi
  rm -f "$(pid_path "$shard")"
  if ((STOPS)); then
    PHASE[shard]=stopped
    say "$NAME-$shard: stopped (exit code $code)"
  else
    _ended "$shard" "$code"
  fi
}

_ended() {
  local shard=$1 code=$2
  if ((SECONDS - STARTED[shard] > 1800)); then FAILURES[shard]=0; fi
  if ((SECONDS - STARTED[shard] > 60)); then DEATHS[shard]=0; fi
  PHASE[shard]=new
  case $code in
    0)
      PHASE[shard]=finished
      say "$NAME-$shard: done"
      ;;
    2)
      ANY_USAGE_ERROR=yes
      _give_up "$shard" "wrong usage (exit code 2)"
      ;;
    42) say "$NAME-$shard: preempted after saving; starting again" ;;
    unknown) say "$NAME-$shard: the adopted process has ended; starting again to see how" ;;
    *)
      if ((code > 128)); then
        DEATHS[shard]=$((DEATHS[shard] + 1))
        if ((DEATHS[shard] > QUICK_DEATHS)); then
          _give_up "$shard" "killed by signal $((code - 128)), $QUICK_DEATHS times in a row"
        else
          say "$NAME-$shard: killed by signal $((code - 128)); starting again"
        fi
      else
        FAILURES[shard]=$((FAILURES[shard] + 1))
        if ((FAILURES[shard] > MAX_RESTARTS)); then
          _give_up "$shard" "failed with exit code $code, ${FAILURES[shard]} times in a row (--max_restarts $MAX_RESTARTS)"
        else
          say "$NAME-$shard: failed with exit code $code; starting again (${FAILURES[shard]} of at most $MAX_RESTARTS times)"
        fi
      fi
      ;;
  esac
}

_give_up() {
  PHASE[$1]=failed
  warn "$NAME-$1: $2"
  printf -- '--- the end of %s\n' "$(log_path "$1")"
  tail -n 20 "$(log_path "$1")" || true
  printf -- '---\n'
}

# The first Ctrl-C asks the workers to save, the second ends them.
_stop_workers() {
  local shard signal=''
  if [[ $STOPS == 1 && -z ${ASKED:-} ]]; then
    signal=TERM ASKED=yes
    say "stopping; waiting for the workers to save (once more ends them at once)"
  elif ((STOPS > 1)); then
    signal=KILL
  fi
  [[ -n $signal ]] || return 0
  for shard in "${!PID[@]}"; do
    if [[ ${PHASE[shard]} == running ]]; then kill "-$signal" "${PID[shard]}" 2> /dev/null || true; fi
  done
}

_local_summary() {
  if [[ ${ARGUMENTS[0]} == sweep ]]; then
    "$GPICL" sweep "${LOCAL_GIN_ARGUMENTS[@]}" --workdir "$WORKDIR" --status || warn "there is no table of the runs"
  fi
  say "$(count_phases finished) of $NUM_SLICES shards done, in $WORKDIR"
  if [[ -n $ANY_USAGE_ERROR ]]; then exit 2; fi
  if (($(count_phases failed))); then exit 1; fi
}
