# shellcheck shell=bash
# The start-up script of a slice: values, quoted by printf %q, and behind them what every host does with them.

readonly UV_VERSION=0.13.9 # brings Python 3.12 to the hosts
readonly MAX_STARTUP_BYTES=262144 # of one metadata value

# Prints the script of one shard. Line 2 alone differs between shards.
startup_script() {
  printf '#!/usr/bin/env bash\n'
  printf 'SHARD=%q\n' "$1"
  printf 'set -euo pipefail\n'
  local variable
  for variable in NAME WORKDIR DIGEST PACKAGE WHEEL CONSTRAINTS UV_VERSION MAX_RESTARTS RESTART_SECONDS COORDINATOR_PORT; do
    printf '%s=%q\n' "$variable" "${!variable}"
  done
  printf 'NUM_SHARDS=%q\n' "$NUM_SLICES"
  _array ARGUMENTS "${ARGUMENTS[@]}"
  _array DATASETS "${DATASETS[@]}"
  _array FILES "${FILES[@]}"
  printf '\n'
  cat "$LIB/storage.sh"
  printf '\n'
  cat "$LIB/host.sh"
}

# _array NAME VALUES...
_array() {
  printf '%s=(\n' "$1"
  if (($# > 1)); then printf '  %q\n' "${@:2}"; fi
  printf ')\n'
}

startup_path() { printf '%s/%s-%s.startup.sh\n' "$STATE_FOLDER" "$NAME" "$1"; }

# Writes the scripts of all shards; the first is written, the others are copies with another line 2.
write_startup_scripts() {
  local size shard
  size=$(startup_script 1 | wc -c)
  ((size < MAX_STARTUP_BYTES)) || usage_error "the gin files and bindings are too large for a start-up script ($size bytes)"
  startup_script 1 | write_file "$(startup_path 1)"
  for ((shard = 2; shard <= NUM_SLICES; shard++)); do
    if [[ -n $DRY_RUN ]]; then
      printf "sed '2s/.*/SHARD=%d/' %s > %s\n" "$shard" "$(shell_word "$(startup_path 1)")" \
        "$(shell_word "$(startup_path "$shard")")"
    else
      sed "2s/.*/SHARD=$shard/" "$(startup_path 1)" > "$(startup_path "$shard")"
    fi
  done
}
