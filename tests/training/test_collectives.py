"""Devices send each other what the design names and nothing else: weights once a pass, gradients, embeddings once."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from lesa_jax.models.config import read_config
from lesa_jax.planning.record import read_growth
from tests.support.devices import environment_of

MATRICES = 7  # of a layer of Llama
NUMBERS = 1024  # bytes: what is smaller are counts and losses, norms' gradients, and the numbers of tokens


def sent(folder, train, mesh, remat="full"):
    command = [sys.executable, "-m", "tests.support.collectives", str(folder), train, mesh, remat]
    env = environment_of(8)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    counts: Counter[str] = Counter()
    for kind, times, nbytes in json.loads(done.stdout.splitlines()[-1]):
        if nbytes > NUMBERS:
            counts[kind] += times
    return counts


@pytest.fixture(scope="module")
def depths(place):
    """Layers, and those that have a backward pass where new ones alone are trained."""
    config = read_config(json.loads((place / "grown" / "config.json").read_text()))
    plan = read_growth(place / "grown", config.num_layers).plan
    return config.num_layers, config.num_layers - min(plan.new_layers)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["full", "block"])
def test_a_shared_weight_is_gathered_once_a_pass(place, depths, remat):
    """Forward, and where there is one in the backward pass, which computes the layer again; and the head once."""
    layers, backward = depths
    counts = sent(place / "grown", "new", "fsdp=8", remat)
    assert counts["all-gather"] in (MATRICES * (layers + backward) + 1, MATRICES * (layers + backward) + 2)
    assert counts["all-to-all"] == 1  # what was looked up in an embedding that is shared along its width
    assert not counts["collective-permute"]


@pytest.mark.slow
def test_copies_of_the_model_send_gradients_only(place, depths):
    counts = sent(place / "grown", "new", "data=8,fsdp=1")
    assert set(counts) <= {"all-reduce"}
    assert counts["all-reduce"] <= MATRICES * depths[0] + 2
