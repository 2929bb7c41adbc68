#!/usr/bin/env bash
# Deletes all slices, jobs or workers of a name. --help explains.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/gpicl.sh" delete "$@"
