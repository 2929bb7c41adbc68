#!/usr/bin/env bash
# Trains one run on a Cloud TPU slice, on GKE, on Slurm, or on this machine. --help explains.
source "$(dirname "${BASH_SOURCE[0]}")/gpicl.sh" train "$@"
