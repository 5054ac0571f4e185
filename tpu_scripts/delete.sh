#!/usr/bin/env bash
# Deletes the TPU and its queued resource, and with them the costs. Its disks are lost; a bucket stays.
#
#     ./delete.sh          asks first
#     ./delete.sh --yes    does not ask
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

yes=0
if [[ ${1:-} == --yes ]]; then
    yes=1
    shift
fi
no_more_arguments "$@"
load_config PROJECT ZONE TPU_NAME

if ((!yes)) && ! dry_run; then
    answer=
    read -r -p "Delete $TPU_NAME in $ZONE, with everything on its disks? [y/N] " answer || true
    [[ $answer == [yY] || $answer == [yY][eE][sS] ]] || fail 1 "nothing deleted"
fi
# --force: the node too, whether or not it still runs.
tpus queued-resources delete "$TPU_NAME" --force --quiet
