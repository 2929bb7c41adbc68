# shellcheck shell=bash
# Calls the gpicl of the checkout's environment, or of PATH. Where there is none, the environment is made.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
GPICL=$ROOT/.venv/bin/gpicl
[[ -x $GPICL ]] || GPICL=$(command -v gpicl) || { make --quiet -C "$ROOT" install >&2; GPICL=$ROOT/.venv/bin/gpicl; }
exec "$GPICL" launch "$@"
