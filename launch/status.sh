#!/usr/bin/env bash
# Shows the slices of a name, what their shards ended with, and the runs. --help explains.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

show_help() {
  cat << 'END'
usage: launch/status.sh [GIN ...] [options]

Shows what launch/tpu_sweep.sh or launch/tpu_train.sh of the same --name has started: the state of the slices (JobSets,
workers), and with --workdir what their shards have ended with. With the gin files of the sweep, also the table of its
runs, from the run folders in --workdir.

  launch/status.sh --name state-size --project P --zone us-west4-a
  launch/status.sh gin/state_size.gin --workdir gs://BUCKET/state_size --project P --zone us-west4-a
  launch/status.sh gin/state_size.gin --scale cpu --engine local --workdir runs/state_size

  --name NAME              (default: from the gin file)
  --engine E               queued-resources (default), gke, local
  --project, --zone        of the slices
  --workdir FOLDER         of the sweep
  --scale, --gin_bindings, --only    as they were given to the sweep
  --log                    show the end of the log of host 0 of every ACTIVE slice, by ssh
  --cluster, --namespace   with --engine gke
Environment: GPICL_PROJECT and so on; the option wins.
Exit codes: 0 shown; 1 something could not be read; 2 wrong usage.
END
}

show_status "$@"
