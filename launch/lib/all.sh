# shellcheck shell=bash
# Loads all parts. ROOT is the checkout, LIB this folder.

if ((BASH_VERSINFO[0] < 4 || (BASH_VERSINFO[0] == 4 && BASH_VERSINFO[1] < 4))); then
  printf 'bash 4.4 or newer is needed (this is %s)\n' "$BASH_VERSION" >&2
  exit 2
fi
LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
ROOT=$(cd "$LIB/../.." && pwd -P)
for part in log options accelerators storage payload package datasets startup phases slices queued_resources processes local yaml \
  manifests gke submit status delete; do
  # shellcheck source=/dev/null
  source "$LIB/$part.sh"
done
unset part
