"""Chunked cross-entropy is cross-entropy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.typing import DTypeLike

from lesa_jax.models.losses import Head, token_nll
from tests.support.heads import HEADS


def case(dtype: DTypeLike = jnp.float32, kind: str = "llama") -> tuple[jax.Array, Head, jax.Array]:
    rng = np.random.default_rng(0)
    bias, cap = HEADS[kind]
    hidden = jnp.asarray(rng.standard_normal((3, 7, 16)), dtype)
    weight = jnp.asarray(rng.standard_normal((50, 16)), dtype)
    targets = jnp.asarray(rng.integers(0, 50, (3, 7)), jnp.int32)
    return hidden, Head(weight, jnp.asarray(rng.standard_normal(50), dtype) if bias else None, cap), targets


def plain(hidden: jax.Array, head: Head, targets: jax.Array) -> jax.Array:
    logits = hidden @ head.weight.T
    logits = logits if head.bias is None else logits + head.bias[None, None]
    logits = logits if head.cap is None else head.cap * jnp.tanh(logits / head.cap)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("chunk_tokens", [1, 7, 1000])
def test_chunk_size_changes_neither_loss_nor_gradient(chunk_tokens: int, kind: str):
    hidden, head, targets = case(kind=kind)
    np.testing.assert_allclose(token_nll(hidden, head, targets, chunk_tokens), plain(hidden, head, targets), rtol=1e-5)

    def weighted(nll: jax.Array) -> jax.Array:
        return (nll * jnp.arange(21.0).reshape(3, 7)).sum()

    got = jax.grad(lambda h, w: weighted(token_nll(h, w, targets, chunk_tokens)), argnums=(0, 1))(hidden, head)
    expected = jax.grad(lambda h, w: weighted(plain(h, w, targets)), argnums=(0, 1))(hidden, head)
    for mine, reference in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-4, atol=1e-4)


def test_loss_is_float32_and_accurate_for_bfloat16_hidden_states():
    hidden, head, targets = case(jnp.bfloat16)
    nll = token_nll(hidden, head, targets)
    assert nll.dtype == jnp.float32
    expected = plain(hidden.astype(jnp.float32), jax.tree.map(lambda x: x.astype(jnp.float32), head), targets)
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


def test_no_tensor_of_all_tokens_by_vocabulary_exists():
    hidden, head, targets = case()
    program = jax.make_jaxpr(jax.grad(lambda h: token_nll(h, head, targets, 7).sum()))(hidden)
    assert "f32[7,50]" in str(program)
    assert "f32[21,50]" not in str(program)
    assert "f32[3,7,50]" not in str(program)
