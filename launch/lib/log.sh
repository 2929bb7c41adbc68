# shellcheck shell=bash
# One voice: lines with the time for what changes, one line for what is wrong, and commands shown as they are run.

say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*"; }

warn() { printf '%s warning: %s\n' "$(date +%H:%M:%S)" "$*" >&2; }

# Wrong usage: nothing was made.
usage_error() {
  printf '%s: error: %s\n' "$(basename "$0")" "$*" >&2
  exit 2
}

failure() {
  printf '%s: error: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# One shell word, so that it can be pasted: plain words as they are, anything else in quotes.
shell_word() {
  if [[ $1 =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then
    printf '%s' "$1"
  elif [[ $1 =~ [[:cntrl:]] ]]; then
    printf '%q' "$1"
  else
    printf "'%s'" "${1//\'/\'\\\'\'}"
  fi
}

# A command line, as it is run.
show_command() {
  local word line=''
  for word in "$@"; do line+="${line:+ }$(shell_word "$word")"; done
  printf '%s\n' "$line"
}

# Runs a command that changes something; with --dry_run, only shows it.
run() {
  if [[ -n ${DRY_RUN:-} ]]; then show_command "$@"; else "$@"; fi
}

# Shows how to make a file, or makes it: write_file PATH < TEXT
write_file() {
  if [[ -n ${DRY_RUN:-} ]]; then
    printf "mkdir -p %s\ncat > %s <<'END_OF_FILE'\n" "$(shell_word "$(dirname "$1")")" "$(shell_word "$1")"
    cat
    printf 'END_OF_FILE\n'
  else
    mkdir -p "$(dirname "$1")"
    cat > "$1"
  fi
}
