# shellcheck shell=bash
# What is known about the accelerator types: v4-N and v5p-N count cores (two a chip), v5litepod-N and v6e-N count chips.

# describe_accelerator TYPE sets CHIPS, HOSTS, CHIPS_PER_HOST, TOPOLOGY, GKE_ACCELERATOR and DEFAULT_RUNTIME_VERSION.
describe_accelerator() {
  local generation=${1%-*} number=${1##*-}
  [[ $1 == *-* && $number =~ ^[1-9][0-9]{0,4}$ ]] \
    || usage_error "--accelerator_type must be like v5litepod-16, v6e-16, v4-16 or v5p-16, not '$1'"
  case $generation in
    v5litepod) DEFAULT_RUNTIME_VERSION=v2-alpha-tpuv5-lite GKE_ACCELERATOR=tpu-v5-lite-podslice CHIPS=$number ;;
    v6e) DEFAULT_RUNTIME_VERSION=v2-alpha-tpuv6e GKE_ACCELERATOR=tpu-v6e-slice CHIPS=$number ;;
    v4) DEFAULT_RUNTIME_VERSION=tpu-ubuntu2204-base GKE_ACCELERATOR=tpu-v4-podslice CHIPS=$((number / 2)) ;;
    v5p) DEFAULT_RUNTIME_VERSION=v2-alpha-tpuv5 GKE_ACCELERATOR=tpu-v5p-slice CHIPS=$((number / 2)) ;;
    *) usage_error "unknown accelerator type '$1'; known are v4-, v5litepod-, v5p- and v6e- with a size behind" ;;
  esac
  case $generation in
    v4 | v5p) TOPOLOGY=$(_topology_3d "$CHIPS") ;;
    *) TOPOLOGY=$(_topology_2d "$CHIPS") ;;
  esac
  [[ -n $TOPOLOGY ]] || usage_error "there is no $1: $(_sizes "$generation")"
  CHIPS_PER_HOST=4
  # One host holds up to 8 chips of v5e and v6e; slices of more have hosts of 4.
  if [[ $TOPOLOGY != *x*x* ]] && ((CHIPS <= 8)); then CHIPS_PER_HOST=$CHIPS; fi
  HOSTS=$((CHIPS / CHIPS_PER_HOST))
}

_topology_2d() {
  case $1 in
    1) echo 1x1 ;; 4) echo 2x2 ;; 8) echo 2x4 ;; 16) echo 4x4 ;; 32) echo 4x8 ;; 64) echo 8x8 ;; 128) echo 8x16 ;;
    256) echo 16x16 ;;
  esac
}

_topology_3d() {
  case $1 in
    4) echo 2x2x1 ;; 8) echo 2x2x2 ;; 16) echo 2x2x4 ;; 32) echo 2x4x4 ;; 64) echo 4x4x4 ;; 128) echo 4x4x8 ;;
    256) echo 4x8x8 ;; 512) echo 8x8x8 ;; 1024) echo 8x8x16 ;; 2048) echo 8x16x16 ;;
  esac
}

_sizes() {
  case $1 in
    v4 | v5p) echo "sizes of $1 count cores, from 8 to 4096, each twice the one before" ;;
    *) echo "sizes of $1 count chips: 1, 4, 8, 16, 32, 64, 128, 256" ;;
  esac
}
