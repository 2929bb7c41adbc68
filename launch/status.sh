#!/usr/bin/env bash
# Shows the slices, jobs or workers of a name, what their shards ended with, and the runs. --help explains.
source "$(dirname "${BASH_SOURCE[0]}")/gpicl.sh" status "$@"
