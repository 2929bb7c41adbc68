#!/usr/bin/env bash
# Deletes all slices, JobSets or workers of a name. --help explains.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

show_help() {
  cat << 'END'
usage: launch/delete.sh [--name] NAME [options]

Deletes everything that launch/tpu_sweep.sh or launch/tpu_train.sh of this --name has started: all slices NAME-1, NAME-2,
..., whoever has made them; with --engine gke all JobSets; with --engine local all workers, which save first. Run folders
are kept, so that the same sweep can go on later. Nothing there is no error.

  launch/delete.sh state-size --project P --zone us-west4-a
  launch/delete.sh state-size --engine local --workdir runs/state_size --yes

  --name NAME
  --engine E               queued-resources (default), gke, local
  --project, --zone        of the slices
  --workdir FOLDER         of the sweep, with --engine local
  --cluster, --namespace   with --engine gke
  --yes                    do not ask (needed where nobody can answer)
  --dry_run                print the commands
Environment: GPICL_PROJECT and so on; the option wins.
Exit codes: 0 nothing is left; 1 something could not be deleted; 2 wrong usage.
END
}

delete_all "$@"
