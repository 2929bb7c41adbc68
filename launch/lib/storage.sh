# shellcheck shell=bash
# Files in the working folder, on gs:// or in a folder that this machine sees. Also part of the start-up script.

is_remote() { [[ $1 == gs://* ]]; }

copy_file() {
  if is_remote "$1" || is_remote "$2"; then
    run gcloud storage cp --quiet "$1" "$2"
  else
    run mkdir -p -- "$(dirname "$2")"
    run cp -- "$1" "$2"
  fi
}

# The files of a folder and those below it; what is there already, and the same, is left alone.
copy_folder() {
  is_remote "$2" || run mkdir -p -- "$2"
  if is_remote "$1" || is_remote "$2"; then
    run gcloud storage rsync --quiet --recursive "$1" "$2"
  elif [[ -n ${DRY_RUN:-} ]] || ! diff -rq -- "$1" "$2" > /dev/null 2>&1; then
    run cp -R -- "$1/." "$2"
  fi
}

# Prints a file; fails where there is none, or where it cannot be read now.
read_file() {
  if is_remote "$1"; then gcloud storage cat "$1" 2> /dev/null; else cat -- "$1" 2> /dev/null; fi
}

remove_file() {
  if is_remote "$1"; then run gcloud storage rm --quiet "$1"; else run rm -f -- "$1"; fi
}

# Prints the paths that match a pattern whose only wildcard is in the file's name; none is no error.
list_files() {
  if is_remote "$1"; then gcloud storage ls "$1" 2> /dev/null || true; else compgen -G "$1" || true; fi
}

# The value of a key in lines of key=value.
value_of() { sed -n "s/^$1=//p" <<< "$2" | head -n 1; }
