# shellcheck shell=bash
# What is to be run: the arguments of gpicl, the user's own gin files, and a digest that tells two payloads apart.

# Sets ARGUMENTS (of gpicl, less the shard), FILES (path, content in base64, ...) and GIN_PATHS (here, of the same files).
# build_payload train|sweep GIN...
build_payload() {
  local command=$1 gin
  shift
  ARGUMENTS=("$command") FILES=() GIN_PATHS=()
  for gin in "$@"; do _add_gin_file "$gin"; done
  if [[ -n $SCALE ]]; then
    [[ -f $ROOT/gin/scale/$SCALE.gin ]] || usage_error "--scale $SCALE: there is no gin/scale/$SCALE.gin; there are $(_scales)"
    ARGUMENTS+=(--gin_file "gin/scale/$SCALE.gin")
    GIN_PATHS+=("gin/scale/$SCALE.gin")
  fi
  local binding
  for binding in "${GIN_BINDINGS[@]}"; do ARGUMENTS+=(--gin_bindings "$binding"); done
  ARGUMENTS+=(--workdir "$WORKDIR")
  if [[ $command == sweep ]]; then
    if [[ -n $ONLY ]]; then ARGUMENTS+=(--only "$ONLY"); fi
    if [[ -n $STACK ]]; then ARGUMENTS+=(--stack "$STACK"); fi
  fi
}

# The arguments that choose the points, for gpicl on this machine.
local_gin_arguments() {
  local path binding
  LOCAL_GIN_ARGUMENTS=()
  for path in "${GIN_PATHS[@]}"; do LOCAL_GIN_ARGUMENTS+=(--gin_file "$path"); done
  for binding in "${GIN_BINDINGS[@]}"; do LOCAL_GIN_ARGUMENTS+=(--gin_bindings "$binding"); done
}

# Of everything that decides what is computed: arguments, files, number of shards, package, base datasets.
payload_digest() {
  printf '%s\0' "${ARGUMENTS[@]}" "${FILES[@]}" "$NUM_SLICES" "$PACKAGE" "$PACKAGE_DIGEST" "${DATASETS[@]}" | sha256
}

sha256() {
  local sum
  if command -v sha256sum > /dev/null; then sum=$(sha256sum); else sum=$(shasum -a 256); fi
  printf '%s\n' "${sum:0:16}"
}

_add_gin_file() {
  local given=$1 path
  if [[ -f $given ]]; then
    path=$(cd "$(dirname "$given")" && pwd -P)/$(basename "$given")
  elif [[ -f $ROOT/$given ]]; then
    path=$ROOT/$given
  else
    usage_error "no gin file '$given', neither here nor among those that come with gpicl"
  fi
  [[ $given != *$'\n'* ]] || usage_error "a gin file's name must be one line"
  GIN_PATHS+=("$given")
  if [[ $ENGINE == local ]]; then
    return 0 # nothing has to travel
  elif _is_shipped "$path"; then
    ARGUMENTS+=(--gin_file "${path#"$ROOT/"}")
  elif [[ $given == /* || /$given/ == */../* ]]; then
    _embed "$path" "given/$(basename "$given")"
    ARGUMENTS+=(--gin_file "given/$(basename "$given")")
  else
    _embed "$given" "$given"
    ARGUMENTS+=(--gin_file "$given")
  fi
}

# Gin files that are part of the wheel: setup.py names the folders.
_is_shipped() {
  local name=${1#"$ROOT/gin/"} folder
  [[ $1 == "$ROOT/gin/"* ]] || return 1
  folder=$(dirname "$name")
  [[ $folder == . ]] || grep -q "\"gpicl_flax.gin.${folder//\//.}\"" "$ROOT/setup.py"
}

# Takes a file along, with the files that it includes.
_embed() {
  local path=$1 target=$2 i included
  for ((i = 0; i < ${#FILES[@]}; i += 2)); do
    [[ ${FILES[i]} != "$target" ]] || {
      [[ ${FILES[i + 1]} == "$(base64 < "$path" | tr -d '\n')" ]] || usage_error "two gin files are called '$target'"
      return 0
    }
  done
  FILES+=("$target" "$(base64 < "$path" | tr -d '\n')")
  while IFS= read -r included; do
    if [[ -f $included ]]; then
      ! _is_shipped "$(cd "$(dirname "$included")" && pwd -P)/$(basename "$included")" || continue
      [[ $included != /* && /$included/ != */../* ]] \
        || usage_error "$path includes '$included', which cannot be taken along; include it by a path below this folder"
      _embed "$included" "$included"
    elif [[ ! -f $ROOT/$included ]]; then
      usage_error "$path includes '$included', which is neither here nor among the files that come with gpicl"
    fi
  done < <(sed -nE -e "s/^[[:space:]]*include[[:space:]]+'([^']+)'.*/\1/p" \
    -e 's/^[[:space:]]*include[[:space:]]+"([^"]+)".*/\1/p' "$path")
}

_scales() {
  local path names=''
  for path in "$ROOT"/gin/scale/*.gin; do names+="${names:+, }$(basename "$path" .gin)"; done
  printf '%s\n' "$names"
}
