# shellcheck shell=bash
# Values in manifests: JSON strings, which are YAML as well.

# One string in quotes.
json_string() {
  local text=$1 i character code
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  text=${text//$'\r'/\\r}
  text=${text//$'\t'/\\t}
  for ((i = 1; i < 32; i++)); do
    [[ $text == *[[:cntrl:]]* ]] || break
    printf -v code '\\x%02x' "$i"
    printf -v character '%b' "$code"
    printf -v code '\\u%04x' "$i"
    text=${text//"$character"/"$code"}
  done
  printf '"%s"' "${text//$'\x7f'/\\u007f}"
}

# A list in one line: json_list VALUE...
json_list() {
  local value line=''
  for value in "$@"; do line+="${line:+, }$(json_string "$value")"; done
  printf '[%s]' "$line"
}

# Arguments of a container: Kubernetes replaces $(NAME) there, and takes $$ for a dollar sign.
container_arguments() {
  local values=("$@")
  json_list "${values[@]//\$/\$\$}"
}
