#!/usr/bin/env bash
# Trains on all GPUs of this machine, as one process; the options are those of python -m lesa_jax.train.
#
#     ./multi_gpu.sh --model expanded --data corpus.jsonl --tokens 200M --output run
#
# The model and its optimizer are sharded over the GPUs; a --mesh of your own replaces that. CUDA_VISIBLE_DEVICES
# chooses GPUs, PYTHON the interpreter: one with pip install -e . "jax[cuda13]" (or cuda12, for older drivers).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[[ $# -gt 0 ]] || fail 2 "no options: at least --model, --data and --tokens are needed; see --help"
mesh=(--mesh 'data=1,fsdp=-1,tensor=1')
for argument in "$@"; do
    case $argument in --mesh | --mesh=*) mesh=() ;; esac
done
dry_run || exec "${PYTHON:-python}" -m lesa_jax.train "${mesh[@]}" "$@"
run "${PYTHON:-python}" -m lesa_jax.train "${mesh[@]}" "$@"
