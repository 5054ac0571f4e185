"""Layers of different sizes: where runs begin, and trees of the same layers in another order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from lesa_jax.families.model import ModelConfig
from lesa_jax.models.config import read_config
from lesa_jax.models.decoder import embed, final_norm, forward, make_context, run_layers
from lesa_jax.models.runs import layer_runs, reordered, run_of
from lesa_jax.models.shapes import check_shapes, model_stacks
from tests.support.tiny import OPENELM_LIKE

# Where the number of heads changes the width does not, but for layer 5, which is like layer 0 again.
OVERLAPPING = {
    "model_type": "openelm",
    "num_query_heads": [4, 4, 4, 2, 2, 4],
    "num_kv_heads": [2, 2, 2, 1, 1, 2],
    "ffn_multipliers": [1.0, 1.0, 3.0, 3.0, 1.5, 1.0],
}


def config() -> ModelConfig:
    return read_config(OPENELM_LIKE | OVERLAPPING)


def tree(model: ModelConfig):
    """Random numbers for all tensors, as a checkpoint has them."""
    rng, found = np.random.default_rng(0), {}
    for stack in model_stacks(model):
        shape = stack.sizes + stack.spec.shape
        found[".".join(stack.path)] = jnp.asarray(rng.standard_normal(shape, np.float32) * 0.2)
    return unflatten_dict(found, sep=".")


def test_a_run_ends_where_any_size_changes():
    assert layer_runs(config()) == [range(2), range(2, 3), range(3, 4), range(4, 5), range(5, 6)]


@pytest.mark.parametrize("order", [(0, 1, 5), (0, 5, 1), (3, 4), (5,), (0, 1, 2, 2, 2, 3, 4, 5), (4, 3, 2, 5, 0, 0)])
def test_a_tree_in_another_order_is_that_of_such_a_checkpoint(order):
    params, model = tree(config()), config().of_layers(order)
    found = reordered(params, config(), order)
    check_shapes({name: leaf.shape for name, leaf in flatten_dict(found, sep=".").items()}, model)
    tokens = jnp.arange(16)[None]
    context, positions = make_context(jnp.arange(16)[None], model), jnp.arange(16)[None]
    x = embed(params, tokens, positions, model)
    for layer in order:
        one = config().of_layers([layer])
        x = run_layers(run_of(params, range(layer, layer + 1), config()), x, context, one)
    np.testing.assert_allclose(forward(found, tokens, model), final_norm(params, x, model), atol=1e-5)


def test_layers_twice_moved_are_at_home_again():
    params = tree(config())
    there = reordered(params, config(), (5, 4, 3, 2, 1, 0))
    back = reordered(there, config().of_layers((5, 4, 3, 2, 1, 0)), (5, 4, 3, 2, 1, 0))
    assert jax.tree.all(jax.tree.map(np.array_equal, back, params))
