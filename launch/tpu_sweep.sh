#!/usr/bin/env bash
# Runs the points of a sweep on Cloud TPU slices, on GKE, on Slurm, or on this machine. --help explains.
source "$(dirname "${BASH_SOURCE[0]}")/gpicl.sh" sweep "$@"
