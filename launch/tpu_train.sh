#!/usr/bin/env bash
# Trains one run on a Cloud TPU slice, on GKE, on Slurm, or on this machine. --help explains.
set -euo pipefail
# shellcheck source=launch/gpicl.sh
source "$(dirname "${BASH_SOURCE[0]}")/gpicl.sh"
exec "$GPICL" launch train "$@"
