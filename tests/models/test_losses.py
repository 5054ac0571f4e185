"""Chunked cross-entropy is cross-entropy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lesa_jax.models.losses import token_nll


def case(dtype: jnp.dtype = jnp.float32) -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.standard_normal((3, 7, 16)), dtype)
    head = jnp.asarray(rng.standard_normal((50, 16)), dtype)
    return hidden, head, jnp.asarray(rng.integers(0, 50, (3, 7)), jnp.int32)


def plain(hidden: jax.Array, head: jax.Array, targets: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ head.T, targets)


@pytest.mark.parametrize("chunk_tokens", [1, 4, 7, 21, 1000])
def test_chunk_size_changes_neither_loss_nor_gradient(chunk_tokens: int):
    hidden, head, targets = case()
    np.testing.assert_allclose(token_nll(hidden, head, targets, chunk_tokens), plain(hidden, head, targets), rtol=1e-5)

    def weighted(nll: jax.Array) -> jax.Array:
        return (nll * jnp.arange(21.0).reshape(3, 7)).sum()

    got = jax.grad(lambda h, w: weighted(token_nll(h, w, targets, chunk_tokens)), argnums=(0, 1))(hidden, head)
    expected = jax.grad(lambda h, w: weighted(plain(h, w, targets)), argnums=(0, 1))(hidden, head)
    for mine, reference in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-4, atol=1e-4)


def test_loss_is_float32_and_accurate_for_bfloat16_hidden_states():
    hidden, head, targets = case(jnp.bfloat16)
    nll = token_nll(hidden, head, targets)
    assert nll.dtype == jnp.float32
    expected = plain(hidden.astype(jnp.float32), head.astype(jnp.float32), targets)
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


def test_no_tensor_of_all_tokens_by_vocabulary_exists():
    hidden, head, targets = case()
    program = jax.make_jaxpr(jax.grad(lambda h: token_nll(h, head, targets, 7).sum()))(hidden)
    assert "f32[7,50]" in str(program)
    assert "f32[21,50]" not in str(program)
    assert "f32[3,7,50]" not in str(program)
