# shellcheck shell=bash
# The prepared base datasets that the runs read: found on this machine, and put where the hosts find them.

# Sets DATASETS, their paths below the folder of TFDS, and DATASET_FOLDERS, where they are here. One that is missing, or that
# cannot travel, ends here.
describe_datasets() {
  local gpicl=$ROOT/.venv/bin/gpicl needed found name folder
  DATASETS=() DATASET_FOLDERS=()
  [[ -z $PACKAGE ]] || return 0
  if [[ ! -x $gpicl ]]; then
    [[ -z $DATA_DIR ]] || usage_error "--data_dir: $gpicl, which knows the base datasets of a run, is not there (make install)"
    warn "there is no $gpicl (make install): gin files are not checked, and no base datasets are brought to the hosts"
    return 0
  fi
  needed=("$gpicl" datasets needed "${LOCAL_GIN_ARGUMENTS[@]}")
  if [[ -n $ONLY ]]; then needed+=(--only "$ONLY"); fi
  if [[ -n $DATA_DIR ]]; then needed+=(--data_dir "$DATA_DIR"); fi
  if [[ -n $DRY_RUN ]]; then
    printf '# The base datasets that the runs read are found here\n'
    show_command "${needed[@]}"
  fi
  found=$(JAX_PLATFORMS=cpu "${needed[@]}") || exit 2
  while IFS=$'\t' read -r name folder; do
    [[ -n $name ]] || continue
    [[ $folder != *[][*?#]* ]] || usage_error "'$folder' must be a path without * ? [ ] and #, which gcloud takes for wildcards"
    DATASETS+=("$name") DATASET_FOLDERS+=("$folder")
  done <<< "$found"
}

# Copies them to the working folder; what is there already stays.
upload_datasets() {
  local i
  for i in "${!DATASETS[@]}"; do
    copy_folder "${DATASET_FOLDERS[i]}" "$WORKDIR/.launch/data/${DATASETS[i]}" \
      || failure "base dataset ${DATASETS[i]} could not be copied to $WORKDIR"
  done
}
