"""Gradients in half precision where products are: what JAX gives in float32, rounded nowhere else, in half of the
memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from lesa_jax.training.gathering import product_axes
from lesa_jax.training.segments import SEGMENTS
from lesa_jax.training.step import loss_sum, mean_gradient, narrow_leaves, sinks, widened
from tests.support.packed import packed
from tests.support.trees import PLANS, pieces

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("family", "train", "remat"),
    [
        ("llama", "new", "block"),
        pytest.param("llama", "all", "full", marks=SLOW),
        pytest.param("qwen2_moe", "all", "block", marks=SLOW),
        pytest.param("gpt2", "all", "none", marks=SLOW),
    ],
)
def test_they_are_those_of_float32_leaves(family, train, remat):
    (trained, frozen), program, _, _, _ = pieces(family, train, PLANS["top"], remat, "bfloat16")
    batch = packed(program.config.vocab_size)
    count = float(np.sum(batch.weights))
    losses, _, gradient = jax.jit(functools.partial(mean_gradient, program=program))(trained, frozen, batch)
    part = jax.tree.map(lambda x: x[0], batch)
    wide = jax.jit(jax.grad(lambda tree: loss_sum(tree, frozen, part, 0, program), has_aux=True))
    expected, sums = wide(trained)
    assert float(losses.nll) == pytest.approx(float(sums.nll) / float(count), rel=1e-6)
    narrow, theirs = narrow_leaves(program), flatten_dict(expected)
    found = flatten_dict(gradient)
    assert narrow & found.keys()
    for path, array in found.items():
        assert array.dtype == jnp.float32  # of the mean: divided by float32's number of tokens
        scale = np.abs(theirs[path]).max() / count
        np.testing.assert_allclose(array, theirs[path] / count, rtol=1e-2, atol=4e-3 * scale, err_msg=str(path))


def test_only_what_products_read_is_narrow_and_only_in_half_precision():
    _, program, _, _, _ = pieces("qwen2_moe", "all", None, "none", "bfloat16")
    words = {word for path in narrow_leaves(program) for word in path}
    assert {"q_proj", "down_proj", "shared_expert_gate"} <= words
    assert "input_layernorm" not in words
    sparse = next(layer for layer in range(program.config.num_layers) if program.config.is_sparse(layer))
    router = ("mlp", "gate", "weight")
    assert router not in product_axes(program.config, sparse)
    assert not narrow_leaves(pieces("llama", "all", None)[1])


def test_what_takes_the_gradient_of_a_layers_matrices_is_in_half_precision():
    (trained, frozen), program, _, _, _ = pieces("llama", "all", None, "full", "bfloat16")
    part = jax.tree.map(lambda x: x[0], packed(program.config.vocab_size))
    takes = narrow_leaves(program)

    def gradient(learned):
        return jax.grad(lambda tree: loss_sum(widened(trained, tree, takes), frozen, part, 0, program)[0])(learned)

    found = flatten_dict(jax.eval_shape(gradient, sinks(trained, takes, jnp.dtype("bfloat16"))))
    matrices = {leaf.dtype for path, leaf in found.items() if path[0] == SEGMENTS and leaf.ndim > 2}
    assert matrices == {jnp.dtype("bfloat16")}
    assert found["lm_head", "weight"].dtype == jnp.float32
