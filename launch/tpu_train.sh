#!/usr/bin/env bash
# Trains one run on one Cloud TPU slice, on GKE, or on this machine. --help explains.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

show_help() {
  cat << 'END'
usage: launch/tpu_train.sh GIN [GIN ...] [options]

Trains one run, `gpicl train`, on all hosts of one slice, and starts it again when it is preempted or killed, until it is
DONE. Start the same command again at any time: a run that is done is skipped, one that runs is adopted.

  launch/tpu_train.sh gin/quickstart.gin --engine local --workdir runs/mine
  launch/tpu_train.sh gin/quickstart.gin --project P --zone us-west4-a --accelerator_type v5litepod-16 --spot \
      --workdir gs://BUCKET/mine --dry_run

--workdir is the run folder. All else is as in launch/tpu_sweep.sh (its --help explains every option, what happens in
which order, and the costs); --num_slices, --max_parallel, --only and --stack are for sweeps alone. The slice is NAME-1.

  --workdir FOLDER --scale NAME --gin_bindings 'A = B' --package SPEC|preinstalled --data_dir FOLDER
  --engine queued-resources|gke|local --name NAME --project ID --zone ZONE --accelerator_type T --runtime_version V
  --spot --network N --subnetwork N --service_account A --coordinator_port N
  --dry_run --keep --max_restarts N --wait_seconds S --poll_seconds S --restart_seconds S
  GKE: --image IMAGE --cluster NAME --namespace NAME --queue NAME

Environment: every option is also read from GPICL_ and its name in capitals, GPICL_PROJECT say; the option wins.

Exit codes: 0 the run is done (gke: submitted); 1 it failed; 2 wrong usage, and nothing was made; 130 Ctrl-C; 143 told to
stop.
END
}

submit train "$@"
