#!/usr/bin/env bash
# Prepares all hosts: the code, a virtual environment with jax[tpu], the bucket, and a look at the devices.
#
#     ./setup.sh
#
# Without a REPOSITORY it copies this working tree: what git tracks, and new files that it does not ignore.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

no_more_arguments "$@"
load_config PROJECT ZONE TPU_NAME ACCELERATOR_TYPE

# A new VM takes a while to answer.
for attempt in 1 2 3 4 5 6; do
    if on_all_hosts true; then break; fi
    ((attempt < 6)) || fail 1 "the hosts of $TPU_NAME do not answer to ssh; is it ACTIVE? Is port 22 open?"
    sleep "${POLL_SECONDS:-20}"
done

pack_tree() {
    cd "$HERE/.."
    git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
        [[ ! -f $file ]] || printf '%s\0' "$file"
    done | tar --null --files-from=- -czf "$1"
}

if [[ -z ${REPOSITORY:-} ]]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    dry_run || (pack_tree "$folder/lesa_jax_code.tar.gz")
    tpus tpu-vm scp "$folder/lesa_jax_code.tar.gz" "$TPU_NAME:lesa_jax_code.tar.gz" --worker=all
fi

distributed=0
if several_hosts; then distributed=1; fi
settings=$(printf 'REPOSITORY=%q REVISION=%q BUCKET=%q DISTRIBUTED=%q' \
    "${REPOSITORY:-}" "${REVISION:-main}" "${BUCKET:-}" "$distributed")
on_all_hosts "$settings"$'\n'"$(<"$HERE/host_setup.sh")"
