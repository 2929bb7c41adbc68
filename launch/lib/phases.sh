# shellcheck shell=bash
# What the loops over shards share: the phase of every shard, and a pause that a signal ends.

declare -a PHASE

# How many shards are in one of the phases.
count_phases() {
  local shard number=0
  for shard in "${!PHASE[@]}"; do
    if is_one_of "${PHASE[shard]}" "$@"; then number=$((number + 1)); fi
  done
  printf '%s\n' "$number"
}

any_phase() { (($(count_phases "$@") > 0)); }

# Sleeps so that a signal is handled at once.
pause() {
  sleep "$1" &
  wait "$!" || true
}
