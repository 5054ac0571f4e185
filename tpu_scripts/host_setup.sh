#!/usr/bin/env bash
# What setup.sh runs on every host, after setting REPOSITORY, REVISION, BUCKET and DISTRIBUTED. Not for use by hand.
#
# uv brings a Python of its own: the TPU images have 3.10, lesa_jax needs 3.11 or newer.
set -euo pipefail
case "${1:-}" in -h | --help)
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$0"
    exit 0
    ;;
esac
cd "$HOME"
export PATH="$HOME/.local/bin:$PATH"

if [[ -n $REPOSITORY ]]; then
    [[ -d lesa_jax/.git ]] || git clone "$REPOSITORY" lesa_jax
    git -C lesa_jax fetch --tags --force "$REPOSITORY" "$REVISION"
    git -C lesa_jax checkout --force --detach FETCH_HEAD
else
    rm -rf lesa_jax
    mkdir lesa_jax
    tar -xzf lesa_jax_code.tar.gz -C lesa_jax
fi

command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
[[ -x lesa_jax_env/bin/python ]] || uv venv --python 3.12 lesa_jax_env
uv pip install --python lesa_jax_env/bin/python -e lesa_jax "jax[tpu]"

if [[ -n $BUCKET ]]; then
    if ! command -v gcsfuse >/dev/null; then
        packages=https://packages.cloud.google.com/apt
        key=/usr/share/keyrings/cloud.google.asc
        curl -fsSL $packages/doc/apt-key.gpg | sudo tee $key >/dev/null
        echo "deb [signed-by=$key] $packages gcsfuse-$(lsb_release -c -s) main" |
            sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
        # A new VM may be updating itself: wait for it.
        sudo apt-get -o DPkg::Lock::Timeout=600 update -q
        sudo apt-get -o DPkg::Lock::Timeout=600 install -y -q gcsfuse
    fi
    mkdir -p bucket
    # Checkpoints are folders that get renamed when complete; by default gcsfuse refuses that in a flat bucket.
    mountpoint -q bucket || gcsfuse --implicit-dirs --rename-dir-limit=100000 "$BUCKET" bucket
fi

# All hosts of a slice at the same time: each waits for the others.
DISTRIBUTED=$DISTRIBUTED lesa_jax_env/bin/python -c '
import os, jax
if os.environ["DISTRIBUTED"] == "1":
    jax.distributed.initialize()
print(f"host {jax.process_index()} of {jax.process_count()}: {jax.device_count()} devices, "
      f"{jax.local_device_count()} here, {jax.devices()[0].device_kind}")
assert jax.default_backend() == "tpu", "no TPU found"
'
