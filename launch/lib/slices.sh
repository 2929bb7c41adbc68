# shellcheck shell=bash
# Single calls to gcloud about the queued resource of one shard, with what their errors mean.

slice_id() { printf '%s-%s\n' "$NAME" "$1"; }

marker_path() { printf '%s/.launch/%s-%s.result\n' "$WORKDIR" "$NAME" "$1"; }

# What a slice was made for, so that one that does something else is not taken for it.
submission_path() { printf '%s/.launch/%s-%s.submitted\n' "$WORKDIR" "$NAME" "$1"; }

_place() { PLACE=(--project="$PROJECT" --zone="$ZONE"); }

create_command() {
  _place
  CREATE=(gcloud compute tpus queued-resources create "$(slice_id "$1")" --node-id="$(slice_id "$1")" "${PLACE[@]}"
    --accelerator-type="$ACCELERATOR_TYPE" --runtime-version="$RUNTIME_VERSION")
  if [[ -n $SPOT ]]; then CREATE+=(--spot); fi
  if [[ -n $NETWORK ]]; then CREATE+=(--network="$NETWORK"); fi
  if [[ -n $SUBNETWORK ]]; then CREATE+=(--subnetwork="$SUBNETWORK"); fi
  if [[ -n $SERVICE_ACCOUNT ]]; then CREATE+=(--service-account="$SERVICE_ACCOUNT"); fi
  # The working folder and the packages need more than the default scopes.
  CREATE+=(--scopes=https://www.googleapis.com/auth/cloud-platform --metadata-from-file=startup-script="$(startup_path "$1")"
    --quiet)
}

delete_command() {
  _place
  DELETE=(gcloud compute tpus queued-resources delete "$(slice_id "$1")" "${PLACE[@]}" --force --quiet --async)
}

# Sets SLICE_STATE, to NONE where there is no such slice. Fails, with GCLOUD_ERROR set, where gcloud did not answer.
describe_slice() {
  _place
  if _call gcloud compute tpus queued-resources describe "$(slice_id "$1")" "${PLACE[@]}" --format='value(state.state)'; then
    SLICE_STATE=${GCLOUD_OUTPUT:-UNKNOWN}
  elif _is_not_found; then
    SLICE_STATE=NONE
  else
    return 1
  fi
}

# Sets CREATED to created, adopted (it was there), refused (it will never work) or later (it may work later).
create_slice() {
  create_command "$1"
  if _call "${CREATE[@]}"; then
    CREATED=created
  else
    case $GCLOUD_ERROR in
      *ALREADY_EXISTS* | *'already exists'*) CREATED=adopted ;;
      *INVALID_ARGUMENT* | *PERMISSION_DENIED* | *UNAUTHENTICATED* | *NOT_FOUND* | *'gcloud auth login'* | *'argument --'*)
        CREATED=refused
        ;;
      *) CREATED=later ;;
    esac
  fi
}

# Deletes a slice, or finds it gone.
delete_slice() {
  local try
  delete_command "$1"
  for ((try = 1; try <= 4; try++)); do
    if _call "${DELETE[@]}" || _is_not_found; then return 0; fi
    ((try == 4)) || sleep "$((try * try))"
  done
  warn "$(slice_id "$1") could not be deleted ($GCLOUD_ERROR); delete it by hand: $(show_command "${DELETE[@]}")"
  return 1
}

list_command() {
  _place
  LIST=(gcloud compute tpus queued-resources list "${PLACE[@]}" --format='value(name.basename(),state.state)')
}

# Sets SLICES to a line for each slice of the name: NAME-1 and so on, and its state.
list_slices() {
  list_command
  _call "${LIST[@]}" || return 1
  SLICES=$(grep -E "^$NAME-[0-9]+[[:space:]]" <<< "$GCLOUD_OUTPUT" || true)
}

# Runs a command; GCLOUD_OUTPUT is what it printed, GCLOUD_ERROR the last line of its complaint.
_call() {
  local code=0 errors
  errors=$(mktemp)
  GCLOUD_OUTPUT=$("$@" 2> "$errors") || code=$?
  GCLOUD_ERROR=$(grep -E 'ERROR|error' "$errors" | tail -n 1 || true)
  [[ -n $GCLOUD_ERROR ]] || GCLOUD_ERROR=$(tail -n 1 "$errors")
  rm -f "$errors"
  return "$code"
}

_is_not_found() { [[ $GCLOUD_ERROR == *NOT_FOUND* || $GCLOUD_ERROR == *'was not found'* ]]; }
