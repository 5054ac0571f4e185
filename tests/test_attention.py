"""What attention may see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.models.attention import UNLIMITED, causal_attention, layer_windows

TOKENS = 12


def random_qkv() -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = ((1, TOKENS, 4, 8), (1, TOKENS, 2, 8), (1, TOKENS, 2, 8))
    q, k, v = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    return q, k, v


def seen(window: jax.Array | int | None) -> np.ndarray:
    """[T, T]: whether token t's output depends on token s's value."""
    q, k, v = random_qkv()
    outputs = jax.jacrev(lambda values: causal_attention(q, k, values, window).sum(axis=(0, 2, 3)))(v)
    return np.abs(np.asarray(outputs)).sum(axis=(1, 3, 4)) > 0


@pytest.mark.parametrize("window", [None, 1, 3, TOKENS, 100])
def test_reach_is_the_window_and_never_the_future(window: int | None):
    age = np.arange(TOKENS)[:, None] - np.arange(TOKENS)[None, :]
    expected = (age >= 0) & (age < (window or TOKENS))
    np.testing.assert_array_equal(seen(window), expected)
    np.testing.assert_array_equal(seen(jnp.asarray(UNLIMITED if window is None else window)), expected)


@pytest.mark.parametrize("window", [None, 5, 130, 200])
@pytest.mark.parametrize("tokens", [128, 129, 400])
def test_blocks_of_queries_compute_what_the_whole_square_does(tokens: int, window: int | None):
    rng = np.random.default_rng(1)
    q, k, v = (jnp.asarray(rng.standard_normal((2, tokens, heads, 8)), jnp.float32) for heads in (4, 2, 2))
    reach = None if window is None else (window - 1, 0)
    whole = jax.nn.dot_product_attention(q, k, v, is_causal=True, local_window_size=reach)
    np.testing.assert_allclose(causal_attention(q, k, v, window), whole, atol=2e-6)
    traced = jnp.asarray(UNLIMITED if window is None else window)
    np.testing.assert_allclose(causal_attention(q, k, v, traced), whole, atol=2e-6)


@pytest.mark.parametrize("window", [None, 5, 130])
@pytest.mark.parametrize("tokens", [40, 200])
def test_gradients_through_documents_are_those_of_the_whole_square(tokens: int, window: int | None):
    rng = np.random.default_rng(2)
    q, k, v = (jnp.asarray(rng.standard_normal((2, tokens, heads, 8)), jnp.float32) for heads in (4, 2, 2))
    documents = jnp.asarray(np.sort(rng.integers(0, 4, (2, tokens)), axis=1), jnp.int32)
    reach = None if window is None else (window - 1, 0)
    mask = (documents[:, :, None] == documents[:, None, :])[:, None]

    def by_blocks(q, k, v, window):
        return jnp.sum(jnp.sin(causal_attention(q, k, v, window, documents)))

    def whole(q, k, v):
        return jnp.sum(
            jnp.sin(jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=True, local_window_size=reach))
        )

    truth = jax.jit(jax.grad(whole, (0, 1, 2)))(q, k, v)
    traced = jnp.asarray(UNLIMITED if window is None else window)
    for given in (window, traced):
        ours = jax.grad(by_blocks, (0, 1, 2))(q, k, v, given)
        for a, b in zip(ours, truth, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_documents_do_not_see_each_other():
    q, k, v = random_qkv()
    documents = jnp.asarray([[1] * 5 + [2] * 7], jnp.int32)
    outputs = jax.jacrev(lambda values: causal_attention(q, k, values, None, documents).sum(axis=(0, 2, 3)))(v)
    seen = np.abs(np.asarray(outputs)).sum(axis=(1, 3, 4)) > 0
    age = np.arange(TOKENS)[:, None] - np.arange(TOKENS)[None, :]
    same = np.asarray(documents[0])[:, None] == np.asarray(documents[0])[None, :]
    np.testing.assert_array_equal(seen, (age >= 0) & same)


def test_a_traced_window_computes_what_a_static_one_does():
    q, k, v = random_qkv()
    for static, traced in ((3, 3), (None, UNLIMITED)):
        np.testing.assert_allclose(
            causal_attention(q, k, v, static), causal_attention(q, k, v, jnp.asarray(traced)), atol=1e-6
        )


def test_a_window_of_one_returns_the_value_itself():
    q, k, v = random_qkv()
    np.testing.assert_allclose(causal_attention(q, k, v, 1), jnp.repeat(v, 2, axis=2), atol=1e-6)


def test_windows_that_agree_are_no_array():
    assert layer_windows((None, None)) == (None, None)
    assert layer_windows((8, 8, 8)) == (8, None)
    shared, per_layer = layer_windows((None, 8))
    assert shared is None
    np.testing.assert_array_equal(per_layer, [UNLIMITED, 8])
