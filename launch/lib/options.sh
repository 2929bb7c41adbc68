# shellcheck shell=bash
# Options: --name value, --name=value, or GPICL_NAME from the environment; the option wins. Each is kept in the shell
# variable of its name in capitals.

readonly VALUE_OPTIONS=(
  project zone accelerator_type runtime_version num_slices workdir name engine max_parallel scale only stack package
  poll_seconds max_restarts restart_seconds wait_seconds network subnetwork service_account
  cluster namespace queue image coordinator_port data_dir
)
readonly FLAG_OPTIONS=(spot keep dry_run yes log)
# And gin_bindings, which is repeatable; in the environment one a line.

# Fills the variables from the environment and the command line. POSITIONAL holds what is no option.
# parse_options "OPTION ..." "$@": only the options that are named are allowed.
parse_options() {
  local allowed=" $1 " option name value
  shift
  POSITIONAL=()
  _options_from_environment
  while (($#)); do
    option=$1
    shift
    case $option in
      --help | -h) show_help && exit 0 ;;
      --)
        POSITIONAL+=("$@")
        break
        ;;
      --*) ;;
      *)
        POSITIONAL+=("$option")
        continue
        ;;
    esac
    name=${option#--}
    name=${name%%=*}
    if [[ $allowed != *" $name "* ]]; then
      usage_error "unknown option --$name (--help lists them)"
    elif is_one_of "$name" "${FLAG_OPTIONS[@]}"; then
      [[ $option != *=* ]] || usage_error "--$name takes no value"
      printf -v "${name^^}" yes
    else
      if [[ $option == *=* ]]; then
        value=${option#*=}
      else
        (($#)) || usage_error "--$name needs a value"
        value=$1
        shift
      fi
      [[ -n $value ]] || usage_error "--$name needs a value"
      _set_option "$name" "$value"
    fi
  done
}

_set_option() {
  if [[ $1 != gin_bindings ]]; then
    printf -v "${1^^}" %s "$2"
  else
    GIN_BINDINGS+=("$2")
  fi
}

_options_from_environment() {
  local name variable
  GIN_BINDINGS=()
  for name in "${VALUE_OPTIONS[@]}"; do
    variable=GPICL_${name^^}
    printf -v "${name^^}" %s "${!variable:-}"
  done
  for name in "${FLAG_OPTIONS[@]}"; do
    variable=GPICL_${name^^}
    case ${!variable:-} in
      '' | 0 | no | false) printf -v "${name^^}" %s '' ;;
      1 | yes | true) printf -v "${name^^}" yes ;;
      *) usage_error "$variable must be yes or no, not '${!variable}'" ;;
    esac
  done
  if [[ -n ${GPICL_GIN_BINDINGS:-} ]]; then mapfile -t GIN_BINDINGS <<< "$GPICL_GIN_BINDINGS"; fi
}

is_one_of() {
  local wanted=$1 value
  shift
  for value in "$@"; do [[ $value != "$wanted" ]] || return 0; done
  return 1
}

require_option() {
  local variable=${1^^}
  [[ -n ${!variable} ]] || usage_error "--$1 is needed${2:+ $2} (or GPICL_${1^^} in the environment)"
}

require_positive_integer() {
  local variable=${1^^}
  [[ ${!variable} =~ ^[1-9][0-9]{0,5}$ ]] || usage_error "--$1 must be a positive integer, not '${!variable}'"
}

require_integer() {
  local variable=${1^^}
  [[ ${!variable} =~ ^[0-9]{1,6}$ ]] || usage_error "--$1 must be an integer, 0 or more, not '${!variable}'"
}

require_seconds() {
  local variable=${1^^}
  [[ ${!variable} =~ ^[0-9]{1,7}(\.[0-9]{1,3})?$ ]] || usage_error "--$1 must be a number of seconds, not '${!variable}'"
}

# What Google Cloud, Kubernetes and file names all take, with room for a number behind it.
require_name() {
  local variable=${1^^}
  [[ ${!variable} =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] \
    || usage_error "--$1 must be 1 to 40 of a-z, 0-9 and -, begin with a letter and not end with -; not '${!variable}'"
}

# A name from that of a gin file: gin/state_size.gin -> state-size
name_of_file() {
  local name
  name=$(basename "$1" .gin | tr '[:upper:]' '[:lower:]' | tr -c 'a-z0-9\n' '-' | tr -s '-')
  name=${name#-}
  [[ $name == [a-z]* ]] || name=run-$name
  name=${name:0:40}
  printf '%s\n' "${name%-}"
}
