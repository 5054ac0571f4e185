#!/usr/bin/env bash
# Follows the log of one host, until Ctrl-C; training goes on.
#
#     ./logs.sh               worker 0, the one that reports
#     ./logs.sh --worker 1    another host
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

worker=0
if [[ ${1:-} == --worker ]]; then
    [[ ${2:-} =~ ^[0-9]+$ ]] || fail 2 "--worker takes a number, such as 0"
    worker=$2
    shift 2
fi
no_more_arguments "$@"
load_config PROJECT ZONE TPU_NAME
on_host "$worker" "tail -n 100 -F $LOG"
