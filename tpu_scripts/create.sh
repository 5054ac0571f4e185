#!/usr/bin/env bash
# Asks for the TPU as a queued resource and waits until it is ACTIVE. From that moment it costs money.
#
#     ./create.sh           request and wait
#     ./create.sh --wait    only wait, for a request made earlier
#
# Ends with status 1 if the request fails, or is not filled within TIMEOUT_SECONDS: then it stays in the queue.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

request=1
if [[ ${1:-} == --wait ]]; then
    request=0
    shift
fi
no_more_arguments "$@"
load_config PROJECT ZONE TPU_NAME ACCELERATOR_TYPE RUNTIME_VERSION

if ((request)); then
    options=("--node-id=$TPU_NAME" "--accelerator-type=$ACCELERATOR_TYPE" "--runtime-version=$RUNTIME_VERSION")
    [[ ${SPOT:-0} != 1 ]] || options+=(--spot)
    [[ -z ${NETWORK:-} ]] || options+=("--network=$NETWORK")
    [[ -z ${SUBNETWORK:-} ]] || options+=("--subnetwork=$SUBNETWORK")
    [[ -z ${SERVICE_ACCOUNT:-} ]] || options+=("--service-account=$SERVICE_ACCOUNT")
    tpus queued-resources create "$TPU_NAME" "${options[@]}"
fi

remedy="see: gcloud compute tpus queued-resources describe $TPU_NAME ${PLACE[*]}; then ./delete.sh"
SECONDS=0
while :; do
    state=$(queue_state ACTIVE)
    echo "$(date +%H:%M:%S) $TPU_NAME: $state after ${SECONDS} s"
    case $state in
        ACTIVE) exit 0 ;;
        FAILED | SUSPENDING | SUSPENDED | DELETING | NOT_FOUND)
            fail 1 "the request for $TPU_NAME is $state, there will be no TPU; $remedy" ;;
    esac
    if ((SECONDS >= ${TIMEOUT_SECONDS:-7200})); then
        fail 1 "still $state after $SECONDS s; the request stays in the queue: ./create.sh --wait, or ./delete.sh"
    fi
    sleep "${POLL_SECONDS:-20}"
done
