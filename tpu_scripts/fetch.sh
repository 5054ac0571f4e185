#!/usr/bin/env bash
# Copies the results here: RUN_DIR/final, metrics.jsonl and the loss curve; what does not exist yet is left out.
#
#     ./fetch.sh            into runs/NAME
#     ./fetch.sh FOLDER     into FOLDER
#
# A run in the bucket is copied from there, with or without a TPU; any other from worker 0.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

load_config PROJECT ZONE TPU_NAME RUN_DIR
target=${1:-runs/$(basename "$RUN_DIR")}
[[ $target != -* ]] || no_more_arguments "$target"
no_more_arguments "${@:2}"
run mkdir -p "$target"

if [[ -n ${BUCKET:-} && $RUN_DIR == bucket/* ]]; then
    copy() { run gcloud storage cp --recursive "gs://$BUCKET/${RUN_DIR#bucket/}/$1" "$target/" "--project=$PROJECT"; }
else
    # scp reads a remote path once or twice, depending on its version: a link whose name needs no quotes avoids that.
    on_host 0 "$(quoted ln -sfn "$RUN_DIR" lesa_jax_fetch)"
    copy() { tpus tpu-vm scp --recurse "$TPU_NAME:lesa_jax_fetch/$1" "$target/" --worker=0; }
fi

copied=0
for name in final metrics.jsonl loss.png; do
    if copy "$name"; then copied=$((copied + 1)); else echo "no $name yet" >&2; fi
done
((copied)) || fail 1 "nothing found in $RUN_DIR"
dry_run || echo "copied to $target"
