#!/usr/bin/env bash
# Deletes all slices, jobs or workers of a name. --help explains.
set -euo pipefail
# shellcheck source=launch/gpicl.sh
source "$(dirname "${BASH_SOURCE[0]}")/gpicl.sh"
exec "$GPICL" launch delete "$@"
