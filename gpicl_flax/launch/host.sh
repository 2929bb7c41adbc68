# shellcheck shell=bash disable=SC2153,SC2164
# Runs where a shard runs, behind the values that the launcher writes in front of it: on every host of a slice at every
# boot (ENGINE=queued-resources), or as the batch script of a job (slurm). It runs gpicl until that has ended for good.
# Host 0 leaves the result in the working folder.

export HOME=${HOME:-/root} # start-up scripts have none
FOLDER=${GPICL_HOST_FOLDER:-/var/lib/gpicl} # on a slice's host
ID=$NAME-$SHARD
MARKER=$WORKDIR/.launch/$ID.result
STOPPED='' CHILD='' HOST=0 PROGRAMS='' JOB=''
RUN=("$GPICL")

say() { printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*"; }

copy_file() {
  [[ $2 == gs://* ]] || mkdir -p -- "$(dirname "$2")"
  if [[ $1 == gs://* || $2 == gs://* ]]; then gcloud storage cp --quiet "$1" "$2"; else cp -- "$1" "$2"; fi
}

copy_folder() { # what is there already, and the same, is left alone
  [[ $2 == gs://* ]] || mkdir -p -- "$2"
  if [[ $1 == gs://* || $2 == gs://* ]]; then
    gcloud storage rsync --quiet --recursive "$1" "$2"
  else
    diff -rq -- "$1" "$2" > /dev/null 2>&1 || cp -R -- "$1/." "$2"
  fi
}

try_again() { # try_again TIMES COMMAND...: with growing pauses
  local times=$1 try
  shift
  for ((try = 1; try <= times; try++)); do
    "$@" && return 0
    ((try == times)) || sleep "$((try * 5))"
  done
  return 1
}

# Which host of the slice this is: told by the environment, or by the machine's metadata.
host_index() {
  local index=${GPICL_HOST_INDEX:-${TPU_WORKER_ID:-}} try
  for ((try = 0; try < 10 && ${#index} == 0; try++)); do
    index=$(curl --silent --fail --max-time 5 --header 'Metadata-Flavor: Google' \
      http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number) || sleep 3
  done
  [[ $index =~ ^[0-9]+$ ]] && HOST=$index
}

# Python 3.12 and the package, in an environment of its own. The images come with an older Python.
install_package() {
  local env=$FOLDER/env stamp=$FOLDER/env/.installed-$DIGEST requirement=("$PACKAGE") extras=tpu
  if [[ $PACKAGE == preinstalled ]]; then
    RUN=("$(command -v gpicl)") || { say "gpicl is not on PATH" && return 1; }
    return 0
  fi
  RUN=("$env/bin/gpicl")
  [[ ! -e $stamp ]] || return 0
  say "installing into $env"
  try_again 5 python3 -m pip install --quiet --upgrade --target "$FOLDER/uv" "uv==$UV_VERSION" || return 1
  export PYTHONPATH='' UV_CACHE_DIR=$FOLDER/uv-cache UV_PYTHON_INSTALL_DIR=$FOLDER/python
  try_again 5 "$FOLDER/uv/bin/uv" venv --quiet --clear --python 3.12 "$env" || return 1
  if [[ -z $PACKAGE ]]; then
    local wheel=$FOLDER/package/${WHEEL##*/} constraints=$FOLDER/package/constraints.txt
    try_again 5 copy_file "$WHEEL" "$wheel" && try_again 5 copy_file "$CONSTRAINTS" "$constraints" || return 1
    ((${#PREPARED[@]} == 0)) || extras+=,tensorboard # TensorFlow prepares datasets
    requirement=(--constraint "$constraints" "gpicl_flax[$extras] @ file://$wheel")
  fi
  try_again 5 "$FOLDER/uv/bin/uv" pip install --quiet --python "$env/bin/python" "${requirement[@]}" || return 1
  touch "$stamp"
}

# The base datasets of the runs, onto this host's own disk, where gpicl then looks for all of them. Host 0 prepares those that
# were not brought, once for the slice; the others wait until it has, up to a quarter of an hour (5 + 10 + ... seconds).
fetch_datasets() {
  local name stored=$WORKDIR/.launch/data told=$FOLDER/prepared
  ((${#DATASETS[@]} + ${#PREPARED[@]})) || return 0
  export TFDS_DATA_DIR=$FOLDER/data
  for name in "${PREPARED[@]}"; do
    if [[ $HOST != 0 ]]; then
      try_again 20 copy_file "$stored/$name.prepared" "$told" 2> /dev/null || return 1
    elif ! copy_file "$stored/$name.prepared" "$told" 2> /dev/null; then
      try_again 3 "${RUN[@]}" datasets prepare "$name" && copy_folder "$FOLDER/data/$name" "$stored/$name" || return 1
      : > "$told" && copy_file "$told" "$stored/$name.prepared" || return 1
    fi
  done
  for name in "${DATASETS[@]}" "${PREPARED[@]}"; do
    try_again 5 copy_folder "$stored/$name" "$FOLDER/data/$name" || return 1
  done
}

# The log and the compiled programs, to the working folder. Programs are kept on this host's own disk: on gs://, every
# compilation would wait for the bucket. They are copied from the working folder before gpicl starts, and to it every five
# minutes and when gpicl has ended. No run fails for want of them. JAX writes them on host 0 alone.
store() {
  [[ -z ${LOG:-} ]] || copy_file "$LOG" "$WORKDIR/.launch/$ID.host$HOST.log" > /dev/null 2>&1 || true
  [[ -z $PROGRAMS || $HOST != 0 || ! -d $PROGRAMS ]] \
    || copy_folder "$PROGRAMS" "$WORKDIR/.launch/compilation_cache" > /dev/null 2>&1 || true
}

# The user's own gin files, below the folder that gpicl runs in.
write_files() {
  local i path
  rm -rf "$FOLDER/files" && mkdir -p "$FOLDER/files"
  for ((i = 0; i < ${#FILES[@]}; i += 2)); do
    path=$FOLDER/files/${FILES[i]}
    mkdir -p "$(dirname "$path")" && base64 -d <<< "${FILES[i + 1]}" > "$path"
  done
  cd "$FOLDER/files"
}

# Processes that a killed run left behind hold the chips, and a new run would wait for them for ever.
free_chips() {
  local pattern patterns=() names=() pids pid
  IFS=: read -ra patterns <<< "${GPICL_DEVICES:-/dev/accel*:/dev/vfio/*}"
  for pattern in "${patterns[@]}"; do names+=(${names[@]+-o} -lname "$pattern"); done
  pids=$(find /proc/[0-9]*/fd \( "${names[@]}" \) 2> /dev/null | cut -d/ -f3 | sort -u) || true
  for pid in $pids; do
    [[ $pid != "$$" && $pid != "$BASHPID" ]] || continue
    say "process $pid holds the chips: ended"
    kill -KILL "$pid" 2> /dev/null || true
  done
  rm -f "${GPICL_LOCKFILE:-/tmp/libtpu_lockfile}"
}

ended_already() {
  if [[ $MARKER == gs://* ]]; then gcloud storage cat "$MARKER" 2> /dev/null; else cat -- "$MARKER" 2> /dev/null; fi \
    | grep -qx "digest=$DIGEST"
}

finish() { # finish CODE WHY
  local result
  say "$2 (exit code $1)"
  store
  if [[ $HOST == 0 ]]; then
    result=$(mktemp)
    printf 'exit_code=%s\ndigest=%s\nfinished=%s\nwhy=%s\n' "$1" "$DIGEST" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$2" > "$result"
    try_again 10 copy_file "$result" "$MARKER" || say "the result could not be written to $MARKER"
    rm -f "$result"
  fi
  exit "$1"
}

# One start of gpicl, on this host as on all others; its exit code is in CODE.
run_once() {
  local shard=()
  [[ ${ARGUMENTS[0]} != sweep ]] || shard=(--shard "$SHARD/$NUM_SHARDS")
  "${RUN[@]}" "${ARGUMENTS[@]}" "${shard[@]}" 9>&- &
  CHILD=$!
  if [[ -n $STOPPED ]]; then kill -TERM "$CHILD" 2> /dev/null || true; fi # told before there was a child
  while true; do
    INTERRUPTED='' CODE=0
    wait "$CHILD" || CODE=$?
    [[ -n $INTERRUPTED ]] || break # by a signal to this script: not the exit code of gpicl
  done
  CHILD=''
}

# The machine goes away, or the time of the job is over: gpicl saves and exits with 42. Where all processes are told at once,
# gpicl hears it twice, which it takes for once. srun would kill its tasks: Slurm tells them, by itself where it ends a job.
stop() {
  STOPPED=$1 INTERRUPTED=yes
  if [[ -n $CHILD && -z ${NODES:-} ]]; then kill -TERM "$CHILD" 2> /dev/null || true; fi
  if [[ -n $CHILD && -n ${NODES:-} && $1 == time ]]; then scancel --signal=TERM "$JOB" || true; fi
}

# Starts gpicl again after 42 for ever, after other failures MAX_RESTARTS times in a row, after 0 and 2 never.
run_until_ended() {
  local failures=0 started pause
  while true; do
    started=$SECONDS CODE=none
    [[ $ENGINE == slurm ]] || free_chips # Slurm ends what holds them
    [[ -z $PROGRAMS ]] || copy_folder "$WORKDIR/.launch/compilation_cache" "$PROGRAMS" > /dev/null 2>&1 || true
    if [[ -z $STOPPED ]]; then run_once; fi
    pause=$RESTART_SECONDS
    case $STOPPED:$CODE in
      *:0) finish 0 "done" ;;
      :2) finish 2 "wrong usage" ;;
      time:*) # of the job; --requeue alone would not: it is for nodes that fail
        say "the time is over, gpicl's exit code: $CODE; queued again"
        exec scontrol requeue "$JOB"
        ;;
      ?*:*) say "told to stop (gpicl's exit code: $CODE)" && store && exit 143 ;;
      :42) say "preempted after saving; starting again" ;;
      *)
        if ((SECONDS - started > 1800)); then failures=0; fi
        failures=$((failures + 1))
        ((failures <= MAX_RESTARTS)) || finish "$CODE" "failed $failures times in a row"
        say "failed with exit code $CODE, $failures of at most $MAX_RESTARTS times; starting again"
        pause=$(awk "BEGIN { p = $pause * 2 ^ ($failures - 1); print p < 300 ? p : 300 }")
        ;;
    esac
    store
    sleep "$pause" 9>&- &
    wait "$!" || true # a signal ends it
  done
}

if [[ $ENGINE == queued-resources ]]; then
  mkdir -p "$FOLDER"
  exec 9> "$FOLDER/lock"
  flock -n 9 || { say "another copy of this script is running" && exit 0; }
  LOG=$FOLDER/$ID.log
  exec >> "$LOG" 2>&1
  host_index || { say "cannot tell which host of the slice this is" && exit 1; }
fi
say "$ID, host $HOST: begins"
if ended_already; then say "this has ended already" && exit 0; fi
trap 'stop told' TERM INT
if [[ $ENGINE == queued-resources ]]; then
  if [[ -z ${JAX_COMPILATION_CACHE_DIR:-} ]]; then export JAX_COMPILATION_CACHE_DIR=${PROGRAMS:=$FOLDER/compilation_cache}; fi
  if [[ -n $COORDINATOR_PORT ]]; then export JAX_COORDINATOR_PORT=$COORDINATOR_PORT; fi
  (while sleep 300; do store; done) 9>&- & COPIER=$!
  trap 'kill "$COPIER" 2> /dev/null || true' EXIT
  write_files
  install_package || finish 1 "the package could not be installed"
  fetch_datasets || finish 1 "the base datasets could not be prepared, or copied from $WORKDIR/.launch/data"
else
  JOB=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID # SLURM_JOB_ID of one task is also the number of the whole array
  trap 'stop time' USR1
  if [[ -n $NODES ]]; then
    # One process a node; jax.distributed knows Slurm. After the first has ended, the others have 45 seconds: at once would
    # be too early for one that has saved, and is about to exit with 42.
    RUN=(srun --kill-on-bad-exit=0 --wait=45 "$GPICL")
    if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi # or each has one
  fi
fi
run_until_ended
