#!/usr/bin/env bash
# Runs the points of a sweep on Cloud TPU slices, on GKE, or on this machine. --help explains.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

show_help() {
  cat << 'END'
usage: launch/tpu_sweep.sh GIN [GIN ...] [options]

Runs every point of a sweep, and starts again what is preempted or killed, until all points have ended. Start the same
command again at any time: what is done is skipped, what runs is adopted, and only what is missing is submitted.

  launch/tpu_sweep.sh gin/state_size.gin --engine local --scale cpu --num_slices 2
  launch/tpu_sweep.sh gin/state_size.gin --project P --zone us-west4-a --accelerator_type v5litepod-16 --spot \
      --num_slices 4 --workdir gs://BUCKET/state_size --dry_run

What happens, in this order (--dry_run prints all of it and does nothing):
  1. The options and the gin files are checked. A mistake ends here, with exit code 2.
  2. The points are split into as many shards as --num_slices. Points are independent, so each shard has a slice of its
     own, NAME-1, NAME-2, ...; all hosts of a slice train together.
  3. A wheel of this checkout goes to WORKDIR/.launch/package/, with the versions of everything it needs, and the prepared
     base datasets that the points read (`gpicl datasets needed` names them) to WORKDIR/.launch/data/.
  4. For each shard a queued resource is requested. Its start-up script runs on every host at every boot: it installs
     the package, copies the base datasets to the host's disk, ends what still holds the chips, and runs
     `gpicl sweep --shard i/N` until that has ended.
  5. This script watches. A slice that is suspended, failed or gone before its shard has ended is deleted and requested
     again, and the runs go on from their last checkpoints.
  6. The slice of a shard that has ended is deleted at once; on Ctrl-C all are (unless --keep). What a shard ended with
     is in WORKDIR/.launch/NAME-i.result, the logs of its hosts beside it.
Let it run where it can stay for days: in tmux, or on a small virtual machine. Should it be killed, slices stay: start it
again, or use launch/delete.sh.

Costs: every chip of a slice is paid for while the slice is ACTIVE, idle or not; --spot is the cheaper tier, which can be
taken away at any time and loses at most the steps since the last checkpoint. `gpicl sweep --gin_file GIN --dry_run`
estimates the chip-hours. Waiting in the queue costs nothing.

GIN: gin files, here or among those that come with gpicl; later ones win. Files that do not come with gpicl, and what they
include, travel with the start-up script.

What to run
  --workdir FOLDER          gs://BUCKET/FOLDER, or an absolute path that all hosts mount; with --engine local a folder here
                            (default: runs/ and the name of the gin file)
  --scale NAME              adds gin/scale/NAME.gin as the last gin file: cpu, gpu, laptop
  --gin_bindings 'A = B'    one more binding; repeat it (in the environment: one a line)
  --only PATTERN            only points whose run id contains what the shell pattern describes
  --stack auto|N|off        as in gpicl sweep
  --package SPEC            a pip requirement instead of this checkout, or `preinstalled`: the gpicl on PATH. Then, and where
                            the checkout has no .venv, gin files are not checked here and no base datasets are brought
  --data_dir FOLDER         where prepared base datasets are here (default: $TFDS_DATA_DIR or ~/tensorflow_datasets); with
                            --engine gke where they are in the container (default: what the image says). Points that bind
                            TaskDistribution.data_dir read from there, and nothing is brought for them

Where
  --engine E                queued-resources (default), gke, local
  --name NAME               of the slices, less the number (default: from the gin file)
  --project, --zone         of Google Cloud
  --accelerator_type T      v5litepod-16, v6e-16 (chips), v4-16, v5p-16 (cores, two a chip)
  --runtime_version V       (default: the one for the accelerator type)
  --num_slices N            shards, each with a slice of its own (default 1)
  --max_parallel N          slices that exist at once (default: all)
  --spot                    the cheaper tier
  --network, --subnetwork, --service_account    of the slices
  --coordinator_port N      of jax.distributed, where a firewall blocks the usual one

How
  --dry_run                 print every command, as it would be run, and what it is given; make nothing
  --keep                    delete no slice, not at the end and not on Ctrl-C
  --max_restarts N          in a row, of a slice that is lost and of a gpicl that fails (default 10); preemptions after
                            saving (exit code 42) do not count
  --wait_seconds S          give a slice up that is not ACTIVE within S seconds (default: wait for ever)
  --poll_seconds S          between two looks (default 30; local: 1)
  --restart_seconds S       before gpicl is started again on a host, doubled with each failure in a row (default 5)

GKE (--engine gke): a JobSet for each shard, in a Kueue queue, is written and applied with kubectl; then the script ends,
and the cluster does the rest. The cluster needs JobSet 0.6 and Kueue 0.15 or newer, and node pools of the accelerator type.
  --image IMAGE             a container image that has gpicl
  --cluster NAME            of --project and --zone (default: kubectl's current context)
  --namespace NAME          (default: default)
  --queue NAME              the LocalQueue; made, with a quota of --max_parallel slices, where it is missing (default: gpicl)
  --service_account NAME    of Kubernetes, with access to the working folder

Environment: every option is also read from GPICL_ and its name in capitals, GPICL_PROJECT say; the option wins.
For flags: yes or no. JAX_PLATFORMS reaches the workers of --engine local.

Exit codes: 0 all shards are done (gke: submitted); 1 some failed; 2 wrong usage, and nothing was made; 130 Ctrl-C;
143 told to stop.
END
}

submit sweep "$@"
