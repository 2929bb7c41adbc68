# shellcheck shell=bash
# From the command line to an engine: checks every value before anything is made.

readonly SUBMIT_OPTIONS='project zone accelerator_type runtime_version num_slices workdir name engine max_parallel scale
  gin_bindings only stack package poll_seconds max_restarts restart_seconds wait_seconds network subnetwork
  service_account coordinator_port cluster namespace queue image data_dir spot keep dry_run'

# submit train|sweep ARGUMENTS OF THE SCRIPT...
submit() {
  local command=$1 allowed=${SUBMIT_OPTIONS//[[:space:]]/ }
  shift
  while [[ $allowed == *'  '* ]]; do allowed=${allowed//  / }; done
  if [[ $command == train ]]; then
    allowed=" $allowed "
    for option in num_slices max_parallel only stack; do
      allowed=${allowed/ $option / }
      unset "GPICL_${option^^}" # meant for sweeps
    done
  fi
  parse_options "$allowed" "$@"
  ((${#POSITIONAL[@]})) || usage_error "a gin file is needed, such as gin/state_size.gin (--help explains)"
  _defaults "$command"
  _check "$command"
  STATE_FOLDER=${XDG_CACHE_HOME:-$HOME/.cache}/gpicl_flax/launch/$NAME
  build_payload "$command" "${POSITIONAL[@]}"
  local_gin_arguments
  case $ENGINE in
    local) run_local ;;
    gke)
      PACKAGE_DIGEST=$IMAGE:$DATA_DIR DATASETS=() # the image brings package and data
      DIGEST=$(payload_digest)
      run_gke
      ;;
    queued-resources)
      _check_points "$command"
      describe_datasets
      describe_package
      DIGEST=$(payload_digest)
      [[ -n $DRY_RUN ]] || mkdir -p "$STATE_FOLDER"
      run_queued_resources
      ;;
  esac
}

_defaults() {
  ENGINE=${ENGINE:-queued-resources}
  NUM_SLICES=${NUM_SLICES:-1}
  MAX_PARALLEL=${MAX_PARALLEL:-$NUM_SLICES}
  MAX_RESTARTS=${MAX_RESTARTS:-10}
  RESTART_SECONDS=${RESTART_SECONDS:-5}
  NAME=${NAME:-$(name_of_file "${POSITIONAL[0]}")}
  NAMESPACE=${NAMESPACE:-default}
  QUEUE=${QUEUE:-gpicl}
  if [[ $ENGINE == local ]]; then
    POLL_SECONDS=${POLL_SECONDS:-1}
    WORKDIR=${WORKDIR:-runs/$(basename "${POSITIONAL[0]}" .gin)}
  else
    POLL_SECONDS=${POLL_SECONDS:-30}
  fi
}

_check() {
  is_one_of "$ENGINE" queued-resources gke local \
    || usage_error "--engine must be queued-resources, gke or local, not '$ENGINE'"
  require_name name
  require_positive_integer num_slices
  require_positive_integer max_parallel
  require_integer max_restarts
  require_seconds poll_seconds
  require_seconds restart_seconds
  [[ -z $WAIT_SECONDS ]] || require_seconds wait_seconds
  [[ -z $COORDINATOR_PORT ]] || require_positive_integer coordinator_port
  [[ -z $STACK || $STACK =~ ^(auto|off|[1-9][0-9]*)$ ]] || usage_error "--stack must be auto, off or a positive integer, not '$STACK'"
  [[ -z $SCALE || $SCALE =~ ^[A-Za-z0-9_]+$ ]] || usage_error "--scale must be a name, such as cpu, not '$SCALE'"
  check_workdir
  _check_data_dir
  case $ENGINE in
    gke) _check_gke ;;
    queued-resources) _check_queued_resources ;;
  esac
}

# Also makes a local folder absolute.
check_workdir() {
  if [[ $ENGINE != local ]]; then
    require_option workdir "with --engine $ENGINE: gs://BUCKET/FOLDER, or an absolute path that all hosts mount"
    [[ $WORKDIR == gs://* || $WORKDIR == /* ]] \
      || usage_error "--workdir must be gs://BUCKET/FOLDER or an absolute path that all hosts mount, not '$WORKDIR'"
  fi
  if [[ $WORKDIR == *[[:cntrl:]]* ]]; then usage_error "--workdir must be one line"; fi
  if is_remote "$WORKDIR"; then
    [[ $ENGINE != local ]] || usage_error "--workdir must be a folder of this machine with --engine local, not '$WORKDIR'"
    local pattern='^gs://[a-z0-9][-a-z0-9._]*/[^][*?#]+$' # gcloud takes the others for wildcards
    [[ $WORKDIR =~ $pattern ]] \
      || usage_error "--workdir must be gs://BUCKET/FOLDER, without * ? [ ] and #, not '$WORKDIR'"
  elif [[ $WORKDIR != /* ]]; then
    WORKDIR=$PWD/$WORKDIR
  fi
  WORKDIR=${WORKDIR%/}
}

_check_data_dir() {
  [[ -n $DATA_DIR ]] || return 0
  [[ $DATA_DIR != *[[:cntrl:]]* ]] || usage_error "--data_dir must be one line"
  if [[ $ENGINE == gke ]]; then
    [[ $DATA_DIR == /* ]] || usage_error "--data_dir must be an absolute path in the container with --engine gke, not '$DATA_DIR'"
    return 0
  fi
  [[ -d $DATA_DIR ]] || usage_error "--data_dir: there is no folder '$DATA_DIR' here"
  [[ $ENGINE == local || -z $PACKAGE ]] || usage_error "--data_dir is for the package of this checkout; with --package bring the" \
    "base datasets to the hosts yourself, and bind TaskDistribution.data_dir to where they are"
}

check_place() {
  require_option project
  require_option zone
  [[ $PROJECT =~ ^[a-z0-9][-a-z0-9.:]+$ ]] || usage_error "--project '$PROJECT' cannot be the id of a project"
  [[ $ZONE =~ ^[a-z]+[-a-z0-9]+$ ]] || usage_error "--zone must be like us-central2-b, not '$ZONE'"
}

_check_queued_resources() {
  check_place
  require_option accelerator_type "such as v5litepod-16"
  describe_accelerator "$ACCELERATOR_TYPE"
  RUNTIME_VERSION=${RUNTIME_VERSION:-$DEFAULT_RUNTIME_VERSION}
  local name
  for name in RUNTIME_VERSION NETWORK SUBNETWORK SERVICE_ACCOUNT; do
    [[ ${!name} =~ ^[-A-Za-z0-9._@:/]*$ && ${!name} != -* ]] || usage_error "--${name,,} '${!name}' is not a name"
  done
  [[ $PACKAGE != -* && $PACKAGE != *$'\n'* ]] || usage_error "--package must be one pip requirement, not '$PACKAGE'"
  [[ -n $DRY_RUN ]] || command -v gcloud > /dev/null \
    || usage_error "gcloud is not installed; https://cloud.google.com/sdk/docs/install"
}

_check_gke() {
  require_option accelerator_type "such as v5litepod-16"
  require_option image "with --engine gke: a container image that has gpicl"
  describe_accelerator "$ACCELERATOR_TYPE"
  require_name namespace
  require_name queue
  [[ -z $CLUSTER ]] || require_name cluster
  [[ $IMAGE =~ ^[A-Za-z0-9][-A-Za-z0-9._/:@]*$ ]] || usage_error "--image '$IMAGE' is not the name of an image"
  [[ -z $SERVICE_ACCOUNT ]] || require_name service_account
  [[ -z $PACKAGE ]] || usage_error "--package is for slices; with --engine gke the image brings the package"
  [[ -n $DRY_RUN ]] || command -v kubectl > /dev/null || usage_error "kubectl is not installed"
  gke_options
}

# A mistake in a gin file is found here, and not on a slice that was waited for.
_check_points() {
  local gpicl=$ROOT/.venv/bin/gpicl check
  [[ $1 == sweep && -z $PACKAGE && -x $gpicl ]] || return 0
  check=("$gpicl" sweep "${LOCAL_GIN_ARGUMENTS[@]}" --list)
  if [[ -n $DRY_RUN ]]; then
    printf '# The gin files are checked here\n'
    show_command "${check[@]}"
  else
    JAX_PLATFORMS=cpu "${check[@]}" > /dev/null || exit 2
  fi
}
