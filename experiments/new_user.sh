#!/usr/bin/env bash
# As somebody who has never seen the project: builds wheel and sdist, installs them into fresh environments outside the
# tree, and runs what the README prints (as_printed.py), the notebook and a part of the tests. Fails when one fails.
#
#     experiments/new_user.sh                  # with every Python of 3.11, 3.12 and 3.13 that is there
#     experiments/new_user.sh python3.12
#
# Needs the network for pip only; some 20 minutes and 5 GB of disk for each Python, on two cores.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/new_user.XXXXXX")
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH VIRTUAL_ENV
export JAX_PLATFORMS=cpu HF_HUB_OFFLINE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '\n== %s  %s\n' "$(date +%T)" "$*"; }

# What git knows of the tree, as it lies there: a build leaves nothing behind.
build() {
    say "wheel and sdist, by $1"
    mkdir "$work/tree"
    git -C "$root" ls-files -z | tar -C "$root" --null -T - -cf - | tar -C "$work/tree" -xf -
    "$1" -m venv "$work/builder"
    "$work/builder/bin/pip" install --quiet build twine
    "$work/builder/bin/python" -m build --outdir "$work/dist" "$work/tree" >"$work/build.log" 2>&1 ||
        { tail -n 20 "$work/build.log"; return 1; }
    "$work/builder/bin/twine" check --strict "$work"/dist/*
}

# The wheel alone, away from the tree: the script, the README's commands and its Python, the notebook.
try_wheel() {
    local env=$2/env
    say "wheel, $1"
    "$1" -m venv "$env"
    "$env/bin/pip" install --quiet "$work"/dist/*.whl
    "$env/bin/pip" check
    mkdir "$2/home"
    (cd "$2/home" && PATH="$env/bin:$PATH" python "$root/experiments/as_printed.py" "$root/README.md")
    say "notebook, $1"
    "$env/bin/pip" install --quiet nbclient ipykernel
    (cd "$2/home" && cp "$root/examples/quickstart.ipynb" . && "$env/bin/jupyter-execute" quickstart.ipynb)
}

# The sdist as a clone: the README's first command, and tests that need no model.
try_sdist() {
    say "sdist, $1"
    mkdir "$2/sdist"
    tar -C "$2/sdist" --strip-components 1 -xzf "$work"/dist/*.tar.gz
    (
        cd "$2/sdist"
        make PYTHON="$1" expand
        .venv/bin/pip install --quiet --requirement requirements-test.txt
        .venv/bin/pip check
        .venv/bin/python -m pytest -q tests/base tests/checkpoint tests/test_architecture.py tests/test_options.py
    )
}

pythons=("$@")
if ((${#pythons[@]} == 0)); then
    for name in python3.11 python3.12 python3.13; do
        if "$name" --version >/dev/null 2>&1; then pythons+=("$name"); fi
    done
fi
if ((${#pythons[@]} == 0)); then
    echo "no Python of 3.11, 3.12 or 3.13 on the PATH; name one" >&2
    exit 1
fi
build "${pythons[0]}"
for python in "${pythons[@]}"; do
    place=$(mktemp -d "$work/user.XXXXXX")
    try_wheel "$python" "$place"
    try_sdist "$python" "$place"
    rm -rf "$place"
done
say "all of it, by ${pythons[*]}"
