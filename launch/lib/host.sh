# shellcheck shell=bash
# Runs on every host of a slice at every boot, behind the values that startup.sh writes in front of it: installs the
# package, fetches the base datasets, frees the chips, and runs gpicl until it has ended for good. Host 0 leaves the result in
# the working folder.

export HOME=${HOME:-/root} # start-up scripts have none
FOLDER=${GPICL_HOST_FOLDER:-/var/lib/gpicl}
DEVICES=${GPICL_DEVICES:-/dev/accel*:/dev/vfio/*}
ID=$NAME-$SHARD
MARKER=$WORKDIR/.launch/$ID.result
LOG=$FOLDER/$ID.log
STOPPED=''
CHILD=''

say() { printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*"; }

run() { "$@"; }

# Which host of the slice this is: told by the environment, or by the machine's metadata.
host_index() {
  local index=${GPICL_HOST_INDEX:-${TPU_WORKER_ID:-}} try
  for ((try = 0; try < 10 && ${#index} == 0; try++)); do
    index=$(curl --silent --fail --max-time 5 --header 'Metadata-Flavor: Google' \
      http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number) || sleep 3
  done
  [[ $index =~ ^[0-9]+$ ]] || return 1
  printf '%s\n' "$index"
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

# Python 3.12 and the package, in an environment of its own. The images come with an older Python.
install_package() {
  local env=$FOLDER/env stamp=$FOLDER/env/.installed-$DIGEST
  if [[ $PACKAGE == preinstalled ]]; then
    GPICL=$(command -v gpicl) || { say "gpicl is not on PATH" && return 1; }
    return 0
  fi
  GPICL=$env/bin/gpicl
  [[ ! -e $stamp ]] || return 0
  say "installing into $env"
  try_again 5 python3 -m pip install --quiet --upgrade --target "$FOLDER/uv" "uv==$UV_VERSION" || return 1
  export PYTHONPATH='' UV_CACHE_DIR=$FOLDER/uv-cache UV_PYTHON_INSTALL_DIR=$FOLDER/python
  try_again 5 "$FOLDER/uv/bin/uv" venv --quiet --clear --python 3.12 "$env" || return 1
  local requirement=("$PACKAGE")
  if [[ -z $PACKAGE ]]; then
    local wheel=$FOLDER/package/${WHEEL##*/} constraints=$FOLDER/package/constraints.txt
    mkdir -p "$FOLDER/package"
    try_again 5 copy_file "$WHEEL" "$wheel" || return 1
    try_again 5 copy_file "$CONSTRAINTS" "$constraints" || return 1
    requirement=(--constraint "$constraints" "gpicl_flax[tpu] @ file://$wheel")
  fi
  try_again 5 "$FOLDER/uv/bin/uv" pip install --quiet --python "$env/bin/python" "${requirement[@]}" || return 1
  touch "$stamp"
}

# The base datasets of the runs, onto this host's own disk, where gpicl then looks for all of them.
fetch_datasets() {
  local name
  ((${#DATASETS[@]})) || return 0
  for name in "${DATASETS[@]}"; do
    try_again 5 copy_folder "$WORKDIR/.launch/data/$name" "$FOLDER/data/$name" || return 1
  done
  export TFDS_DATA_DIR=$FOLDER/data
}

# Compiled programs are kept on this host's own disk: on gs://, every compilation would wait for the bucket. They are copied
# from the working folder before gpicl starts, and to it every five minutes and when gpicl has ended. No run fails for want of them.
# Where the environment already names a folder, that one is used and nothing is copied.
choose_program_folder() {
  PROGRAMS=''
  [[ -z ${JAX_COMPILATION_CACHE_DIR:-} ]] || return 0
  PROGRAMS=$FOLDER/compilation_cache
  export JAX_COMPILATION_CACHE_DIR=$PROGRAMS
}

fetch_programs() {
  [[ -n $PROGRAMS ]] || return 0
  copy_folder "$WORKDIR/.launch/compilation_cache" "$PROGRAMS" > /dev/null 2>&1 || true
}

# JAX writes programs on host 0 alone.
store_programs() {
  [[ -n $PROGRAMS && $HOST == 0 && -d $PROGRAMS ]] || return 0
  copy_folder "$PROGRAMS" "$WORKDIR/.launch/compilation_cache" > /dev/null 2>&1 || true
}

# The user's own gin files, below the folder that gpicl runs in.
write_files() {
  local i path
  rm -rf "$FOLDER/files"
  mkdir -p "$FOLDER/files"
  for ((i = 0; i < ${#FILES[@]}; i += 2)); do
    path=$FOLDER/files/${FILES[i]}
    mkdir -p "$(dirname "$path")"
    base64 -d <<< "${FILES[i + 1]}" > "$path"
  done
}

# Processes that a killed run left behind hold the chips, and a new run would wait for them for ever.
free_chips() {
  local pattern patterns=() pids pid
  IFS=: read -ra patterns <<< "$DEVICES"
  local names=()
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
  local result
  result=$(read_file "$MARKER") || return 1
  [[ $(value_of digest "$result") == "$DIGEST" ]]
}

copy_log() { copy_file "$LOG" "$WORKDIR/.launch/$ID.host$HOST.log" > /dev/null 2>&1 || true; }

# finish CODE WHY
finish() {
  say "$2 (exit code $1)"
  copy_log
  if [[ $HOST == 0 ]]; then
    printf 'exit_code=%s\ndigest=%s\nfinished=%s\nwhy=%s\n' "$1" "$DIGEST" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$2" \
      > "$FOLDER/$ID.result"
    try_again 10 copy_file "$FOLDER/$ID.result" "$MARKER" || say "the result could not be written to $MARKER"
  fi
  exit "$1"
}

# One start of gpicl, on this host as on all others; its exit code is in CODE.
run_once() {
  local arguments=("${ARGUMENTS[@]}")
  if [[ ${arguments[0]} == sweep ]]; then arguments+=(--shard "$SHARD/$NUM_SHARDS"); fi
  (cd "$FOLDER/files" && exec "$GPICL" "${arguments[@]}" 9>&-) &
  CHILD=$!
  if [[ -n $STOPPED ]]; then kill -TERM "$CHILD" 2> /dev/null || true; fi # told before there was a child
  while true; do
    INTERRUPTED='' CODE=0
    wait "$CHILD" || CODE=$?
    [[ -n $INTERRUPTED ]] || break # by a signal to this script: not the exit code of gpicl
  done
  CHILD=''
}

# The machine goes away: gpicl saves and exits with 42, and the next boot goes on. Where all processes are told at once,
# gpicl hears it twice, which it takes for once.
stop() {
  STOPPED=yes INTERRUPTED=yes
  if [[ -n $CHILD ]]; then kill -TERM "$CHILD" 2> /dev/null || true; fi
}

# Starts gpicl again after 42 for ever, after other failures MAX_RESTARTS times in a row, after 0 and 2 never.
run_until_ended() {
  local failures=0 started pause
  while true; do
    free_chips
    fetch_programs
    started=$SECONDS CODE=none
    if [[ -z $STOPPED ]]; then run_once; fi
    if [[ -n $STOPPED ]]; then
      say "told to stop (gpicl's exit code: $CODE)"
      copy_log
      store_programs
      exit 143
    fi
    store_programs
    pause=$RESTART_SECONDS
    case $CODE in
      0) finish 0 "done" ;;
      2) finish 2 "wrong usage" ;;
      42) say "preempted after saving; starting again" ;;
      *)
        if ((SECONDS - started > 1800)); then failures=0; fi
        failures=$((failures + 1))
        ((failures <= MAX_RESTARTS)) || finish "$CODE" "failed $failures times in a row"
        say "failed with exit code $CODE, $failures of at most $MAX_RESTARTS times; starting again"
        pause=$(awk "BEGIN { p = $pause * 2 ^ ($failures - 1); print p < 300 ? p : 300 }")
        ;;
    esac
    copy_log
    sleep "$pause"
  done
}

main() {
  mkdir -p "$FOLDER"
  exec 9> "$FOLDER/lock"
  flock -n 9 || { say "another copy of this script is running" && exit 0; }
  exec >> "$LOG" 2>&1
  HOST=$(host_index) || { say "cannot tell which host of the slice this is" && exit 1; }
  say "$ID, host $HOST: start-up script"
  if ended_already; then
    say "this has ended already"
    exit 0
  fi
  trap stop TERM INT
  choose_program_folder
  if [[ -n $COORDINATOR_PORT ]]; then export JAX_COORDINATOR_PORT=$COORDINATOR_PORT; fi
  (while sleep 300; do copy_log && store_programs; done) 9>&- &
  local copier=$!
  # shellcheck disable=SC2064
  trap "kill $copier 2> /dev/null || true" EXIT
  write_files
  install_package || finish 1 "the package could not be installed"
  fetch_datasets || finish 1 "the base datasets could not be copied from $WORKDIR/.launch/data"
  run_until_ended
}

main
