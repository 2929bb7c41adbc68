#!/usr/bin/env bash
# Deletes all slices, jobs or workers of a name. --help explains.
source "$(dirname "${BASH_SOURCE[0]}")/gpicl.sh" delete "$@"
