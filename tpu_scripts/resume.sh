#!/usr/bin/env bash
# After a preemption: deletes the dead queued resource, creates it again, sets it up and launches; the run goes on.
#
#     ./resume.sh            once
#     ./resume.sh --watch    again and again, until RUN_DIR/final exists. Run it in tmux on a machine that stays on.
#
# RUN_DIR must be in a bucket or on a network share: the disks of a preempted TPU are gone.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

watch=0
if [[ ${1:-} == --watch ]]; then
    watch=1
    shift
fi
no_more_arguments "$@"
load_config PROJECT ZONE TPU_NAME ACCELERATOR_TYPE RUNTIME_VERSION RUN_DIR RUN_COMMAND

# ACTIVE can mean a queued resource whose node was taken a moment ago.
tpu_state() {
    local state node
    state=$(queue_state SUSPENDED)
    if [[ $state == ACTIVE ]]; then
        node=$(tpus tpu-vm describe "$TPU_NAME" "--format=value(state)" || true)
        case $node in PREEMPTED | TERMINATED) state=$node ;; esac
    fi
    echo "$state"
}

dead() { [[ $1 == SUSPENDED || $1 == FAILED || $1 == PREEMPTED || $1 == TERMINATED ]]; }
recreate() { { [[ $1 == NOT_FOUND ]] || "$HERE/delete.sh" --yes; } && "$HERE/create.sh"; }
start() { "$HERE/setup.sh" && "$HERE/launch.sh"; }

if ((!watch)); then
    state=$(tpu_state)
    if dead "$state" || [[ $state == NOT_FOUND ]]; then
        recreate "$state" && start
        exit
    fi
    fail 1 "$TPU_NAME is $state, so there is nothing to recreate; once it is ACTIVE: ./setup.sh, ./launch.sh"
fi

finished=$(printf 'test -d %q/final' "$RUN_DIR")
waiting=0 # for a TPU to launch on
while :; do
    state=$(tpu_state)
    echo "$(date +%H:%M:%S) $TPU_NAME: $state"
    if dead "$state" || [[ $state == NOT_FOUND ]]; then
        waiting=1
        if recreate "$state"; then state=ACTIVE; else echo "not created; trying again"; fi
    fi
    if [[ $state == ACTIVE ]] && ((waiting)); then
        if start; then waiting=0; else echo "not started; trying again"; fi
    elif [[ $state == ACTIVE ]] && on_host 0 "$finished" 2>/dev/null; then
        echo "finished: ./fetch.sh copies the results, ./delete.sh ends the costs"
        exit 0
    fi
    if dry_run; then exit 0; fi
    sleep "${POLL_SECONDS:-20}"
done
