# shellcheck shell=bash
# The package that the hosts install: a wheel of this checkout, any pip requirement, or what is there already.

# Sets PACKAGE_DIGEST and, for a wheel, WHEEL and CONSTRAINTS (where the hosts find them) and BUILD (where it is made).
describe_package() {
  local version
  PACKAGE_DIGEST='' WHEEL='' CONSTRAINTS='' BUILD=''
  [[ -z $PACKAGE ]] || return 0
  version=$(sed -nE 's/^__version__ = "(.+)"/\1/p' "$ROOT/gpicl_flax/__init__.py")
  PACKAGE_DIGEST=$(_sources_digest)
  BUILD=$STATE_FOLDER/package/$PACKAGE_DIGEST
  WHEEL=$WORKDIR/.launch/package/$PACKAGE_DIGEST/gpicl_flax-$version-py3-none-any.whl
  CONSTRAINTS=$WORKDIR/.launch/package/$PACKAGE_DIGEST/constraints.txt
}

# Builds the wheel and puts it, with the versions of everything else, where the hosts find it.
upload_package() {
  [[ -z $PACKAGE ]] || return 0
  local wheel=$BUILD/${WHEEL##*/} python=$ROOT/.venv/bin/python
  [[ -x $python ]] || python=python3
  if [[ -n $DRY_RUN || ! -f $wheel ]]; then
    # A copy: a build inside the checkout would also pack what an earlier build has left there.
    run rm -rf "$BUILD"
    run mkdir -p "$BUILD/source"
    run cp -R "$ROOT/setup.py" "$ROOT/pyproject.toml" "$ROOT/README.md" "$ROOT/LICENSE" "$ROOT/gin" "$ROOT/gpicl_flax" \
      "$BUILD/source"
    run "$python" -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir "$BUILD" "$BUILD/source" \
      || failure "the package could not be built; --package takes a pip requirement instead"
  fi
  copy_file "$wheel" "$WHEEL" || failure "the package could not be copied to $WORKDIR"
  copy_file "$ROOT/constraints.txt" "$CONSTRAINTS" || failure "the versions could not be copied to $WORKDIR"
}

_sources_digest() {
  local path
  cd "$ROOT" && find gpicl_flax gin setup.py pyproject.toml constraints.txt -type f \
    \( -name '*.py' -o -name '*.gin' -o -name '*.toml' -o -name '*.txt' \) | LC_ALL=C sort \
    | while IFS= read -r path; do
      printf '%s\0' "$path"
      cat "$path"
    done | sha256
}
