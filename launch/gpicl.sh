# shellcheck shell=bash
# Calls gpicl, of the checkout's own environment or of PATH. Where there is none, the environment is made first.

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
GPICL=$ROOT/.venv/bin/gpicl
[[ -x $GPICL ]] || GPICL=$(command -v gpicl) || { make --quiet -C "$ROOT" install >&2 && GPICL=$ROOT/.venv/bin/gpicl; }
