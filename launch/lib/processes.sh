# shellcheck shell=bash
# Worker processes on this machine and their pid files: "PID START", where START tells a process from a later one that
# was given the same number.

pid_path() { printf '%s/.launch/%s-%s.pid\n' "$WORKDIR" "$NAME" "$1"; }

log_path() { printf '%s/.launch/%s-%s.log\n' "$WORKDIR" "$NAME" "$1"; }

# When a process started, in a form that only needs to be compared; fails where there is none.
process_start() {
  local stat fields
  if [[ -d /proc/self ]]; then
    stat=$(cat "/proc/$1/stat" 2> /dev/null) || return 1
    read -ra fields <<< "${stat##*) }"
    [[ ${fields[0]} != Z ]] || return 1
    printf '%s\n' "${fields[19]}"
  else
    stat=$(ps -o lstart= -p "$1" 2> /dev/null) || return 1
    printf '%s\n' "${stat// /_}"
  fi
}

# Prints the pid of a shard's worker, if it is alive.
live_worker() {
  local pid start
  [[ -f $(pid_path "$1") ]] && read -r pid start < "$(pid_path "$1")" || return 1
  [[ $pid =~ ^[1-9][0-9]*$ && $(process_start "$pid") == "$start" ]] || return 1
  printf '%s\n' "$pid"
}

# The CPU cores that a process may use, one a line; none where nothing tells.
usable_cores() {
  local first last
  while IFS=- read -r first last; do
    seq "$first" "${last:-$first}"
  done < <(taskset -cp "$1" 2> /dev/null | sed -e 's/.*: //' -e 's/,/\n/g')
}

# start_worker SHARD COMMAND...: sets WORKER to its pid. A process group of its own, so that Ctrl-C reaches only the script.
start_worker() {
  local shard=$1
  shift
  set -m
  JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} "$@" >> "$(log_path "$shard")" 2>&1 < /dev/null &
  WORKER=$!
  set +m
  printf '%s %s\n' "$WORKER" "$(process_start "$WORKER" || true)" > "$(pid_path "$shard")"
}

# The shards of a name that have a pid file.
shards_with_pids() {
  local path number
  for path in "$WORKDIR/.launch/$NAME"-*.pid; do
    number=${path##*-}
    number=${number%.pid}
    if [[ -f $path && $number =~ ^[0-9]+$ && $path == "$(pid_path "$number")" ]]; then printf '%s\n' "$number"; fi
  done
}
