#!/usr/bin/env bash
# Shared by the scripts in this folder, which source it: settings, dry runs, commands on the hosts.
#
# DRY_RUN=1 prints every command instead of running it; CONFIG names a file to read instead of config.env.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CONFIG=${CONFIG:-$HERE/config.env}
# Files in the home directory of each host, for the scripts that source this one.
# shellcheck disable=SC2034
LOG=lesa_jax_train.log LOCK=lesa_jax_train.lock PID=lesa_jax_train.pid

# fail STATUS MESSAGE: one line, and out.
fail() {
    echo "$(basename "$0"): $2" >&2
    exit "$1"
}

# The comment at the top of the script is its help.
for argument in "$@"; do
    if [[ $argument == -h || $argument == --help ]]; then
        sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$0"
        exit 0
    fi
done

no_more_arguments() { [[ $# -eq 0 ]] || fail 2 "unknown argument $1: see --help"; }

dry_run() { [[ ${DRY_RUN:-0} == 1 ]]; }

# A command line that bash reads back as the same words.
quoted() {
    local line
    printf -v line '%q ' "$@"
    printf '%s\n' "${line% }"
}

run() { if dry_run; then quoted "$@"; else "$@"; fi; }

# load_config VARIABLE...: reads the settings and insists on these.
load_config() {
    [[ -f $CONFIG ]] || fail 2 "$CONFIG is missing: cp $HERE/config.env.example $HERE/config.env and edit it"
    # shellcheck source=config.env.example
    source "$CONFIG"
    local name
    for name in "$@"; do
        [[ -n ${!name:-} ]] || fail 2 "$name is not set: add $name=... to $CONFIG (config.env.example explains it)"
    done
    dry_run || command -v gcloud >/dev/null || fail 2 "gcloud is missing: install Google Cloud CLI, or set DRY_RUN=1"
    PLACE=("--project=$PROJECT" "--zone=$ZONE")
}

tpus() { run gcloud compute tpus "$@" "${PLACE[@]}"; }
on_host() { tpus tpu-vm ssh "$TPU_NAME" "--worker=$1" "--command=$2"; }
on_all_hosts() { on_host all "$1"; }

# Types end in a number of chips or cores, and no type with more than 8 fits on one host.
several_hosts() {
    [[ -z ${DISTRIBUTED:-} ]] || return "$((DISTRIBUTED != 1))"
    ((${ACCELERATOR_TYPE##*-} > 8))
}

# queue_state STATE_OF_A_DRY_RUN: the queued resource's, or NOT_FOUND, or UNKNOWN when gcloud cannot say.
queue_state() {
    local answer
    local describe=(queued-resources describe "$TPU_NAME" "--format=value(state.state)")
    if dry_run; then
        tpus "${describe[@]}" >&2
        echo "$1"
    elif answer=$(tpus "${describe[@]}" 2>&1); then
        answer=$(grep -Ex '[A-Z_]+' <<<"$answer" | tail -n 1) || true # gcloud may have added a warning
        echo "${answer:-UNKNOWN}"
    elif [[ $answer == *NOT_FOUND* || $answer == *"not found"* ]]; then
        echo NOT_FOUND
    else
        echo "$answer" >&2
        echo UNKNOWN
    fi
}
