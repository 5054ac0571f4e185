"""How much layers matter: against models without them, and against transformers' own hidden states."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers as hf
from flax.traverse_util import flatten_dict, unflatten_dict

from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.evaluation.layers import block_influence, bypass_costs
from lesa_jax.models.config import read_model
from lesa_jax.models.decoder import forward, head
from lesa_jax.models.load import load_model
from lesa_jax.models.losses import token_nll
from tests.support.growth import TOKENS, grow
from tests.support.tiny import tiny

ROWS = np.array(TOKENS, np.int32)


def nothing(done: int) -> None:
    """Nobody looks at the progress."""


def loss_without(params, config, layer: int | None) -> float:
    """Of a model that lacks one of its layers, or none."""
    kept = [number for number in range(config.num_layers) if number != layer]
    flat = flatten_dict(params, sep=".")
    inside = f"{config.names.layers}."
    fewer = {name: x[np.array(kept)] if name.startswith(inside) else x for name, x in flat.items()}
    params, config = unflatten_dict(fewer, sep="."), config.of_layers(kept)
    with jax.default_matmul_precision("highest"):
        hidden = forward(params, jnp.asarray(ROWS), config)
        return float(token_nll(hidden[:, :-1], head(params, config), jnp.asarray(ROWS[:, 1:])).mean())


@pytest.mark.parametrize(
    "family", ["gemma2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("llama", "gpt2", "olmo2"))]
)
def test_bypassing_a_layer_costs_what_a_model_without_it_loses(family):
    """Windows and rotations go with their layers; where a norm stands behind a half it is what falls silent."""
    params, config = load_model(tiny(family))
    whole = loss_without(params, config, None)
    expected = [loss_without(params, config, layer) - whole for layer in range(config.num_layers)]
    steps = []
    found = bypass_costs(open_checkpoint(tiny(family)), config, ROWS, steps.append)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert steps == [1] * config.num_layers
    assert np.ptp(expected) > 1e-4


def test_influence_is_one_minus_the_cosine_of_transformers_hidden_states():
    folder = tiny("llama")
    checkpoint = open_checkpoint(folder)
    found = block_influence(checkpoint, read_model(checkpoint), ROWS, nothing)
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    last = []
    model.model.norm.register_forward_pre_hook(lambda module, inputs: last.append(inputs[0]))
    with torch.no_grad():
        states = model(torch.tensor(TOKENS), output_hidden_states=True).hidden_states
    streams = [*states[:-1], last[0]]  # the last of theirs is behind the final norm
    cosines = [torch.nn.functional.cosine_similarity(a, b, dim=-1).mean() for a, b in pairwise(streams)]
    np.testing.assert_allclose(found, [1 - float(cosine) for cosine in cosines], atol=1e-6)


def test_a_silent_layer_costs_nothing_and_has_no_influence(tmp_path):
    grow(tiny("llama"), tmp_path / "grown", "identity", gaps="1,4")
    checkpoint = open_checkpoint(tmp_path / "grown")
    config = read_model(checkpoint)
    costs, influence = (measure(checkpoint, config, ROWS, nothing) for measure in (bypass_costs, block_influence))
    for position in (2, 6):
        assert costs[position] == 0
        assert influence[position] == 0
    others = [layer for layer in range(8) if layer not in (2, 6)]
    assert (np.abs(costs[others]) > 1e-6).all()
    assert (influence[others] > 1e-5).all()
