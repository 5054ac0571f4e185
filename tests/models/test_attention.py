"""What attention may see."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.sharding import PartitionSpec as P

from lesa_jax.models.attention import (
    causal_attention,
    choose_implementation,
    no_kernel,
    shard_spec,
    square_attention,
)
from lesa_jax.models.blocked_attention import query_blocks
from lesa_jax.models.views import UNLIMITED
from lesa_jax.parallel.mesh import BATCH
from tests.support.operations import largest_bytes

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
@pytest.mark.parametrize("tokens", [40, pytest.param(200, marks=pytest.mark.slow)])
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


@pytest.mark.parametrize("window", [None, 1, 7, 40])
def test_the_whole_square_masks_documents_and_window_as_blocks_do(window: int | None):
    rng = np.random.default_rng(3)
    q, k, v = (jnp.asarray(rng.standard_normal((2, 40, heads, 8)), jnp.float32) for heads in (4, 2, 2))
    documents = jnp.asarray(np.sort(rng.integers(0, 3, (2, 40)), axis=1), jnp.int32)
    found = square_attention(q, k, v, window, documents)
    np.testing.assert_allclose(found, causal_attention(q, k, v, window, documents), atol=2e-6)


@pytest.mark.parametrize(
    ("backend", "dtype", "tokens", "head_dim", "chosen"),
    [
        ("cpu", jnp.bfloat16, 4096, 128, "blocks"),
        ("tpu", jnp.bfloat16, 4096, 128, "splash"),
        ("tpu", jnp.float32, 256, 64, "splash"),
        ("tpu", jnp.bfloat16, 4000, 128, "blocks"),
        ("tpu", jnp.bfloat16, 4096, 48, "blocks"),
        ("gpu", jnp.bfloat16, 4096, 128, "cudnn"),
        ("gpu", jnp.float16, 4000, 48, "cudnn"),
        ("gpu", jnp.float32, 4096, 128, "blocks"),
        ("gpu", jnp.float32, 1024, 128, "xla"),
        ("gpu", jnp.bfloat16, 4095, 128, "blocks"),
        ("gpu", jnp.bfloat16, 4096, 256, "blocks"),
        ("gpu", jnp.bfloat16, 4096, 100, "blocks"),
    ],
)
def test_what_computes_it_depends_on_backend_and_shapes(backend, dtype, tokens, head_dim, chosen):
    assert choose_implementation(backend, dtype, tokens, head_dim) == chosen


@pytest.mark.parametrize(
    ("backend", "tokens", "head_dim", "cap", "words"),
    [
        ("tpu", 4096, 128, 50.0, None),
        ("tpu", 4000, 128, None, "4000 tokens are no multiple of 128"),
        ("tpu", 4096, 80, None, "heads of 80 are no multiple of 64"),
        ("gpu", 4096, 128, None, None),
        ("gpu", 4096, 128, 50.0, "it has no soft cap"),
        ("gpu", 4096, 192, None, "heads of 192: it takes 8, 16, ..., 128"),
        ("gpu", 4095, 128, None, "4095 tokens are an odd number"),
        ("other", 4096, 128, None, "none is known for other"),
    ],
)
def test_a_kernel_that_does_not_fit_is_told_why(backend, tokens, head_dim, cap, words):
    assert no_kernel(backend, jnp.bfloat16, tokens, head_dim, cap) == words
    kernels = {"tpu": "splash", "gpu": "cudnn"}
    chosen = choose_implementation(backend, jnp.bfloat16, tokens, head_dim, cap)
    assert (chosen == kernels.get(backend)) == (words is None)


def test_long_float32_attention_on_a_gpu_never_holds_all_scores(monkeypatch):
    """The evaluation's 8 x 8192 tokens and 32 heads: no array as large as a fifteenth of the square's 69 GB."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    q, k = (jax.ShapeDtypeStruct((8, 8192, heads, 128), jnp.float32) for heads in (32, 8))
    assert largest_bytes(causal_attention, q, k, k) < 8 * 32 * 8192 * 8192 * 4 / 15


@pytest.mark.parametrize(
    ("platform", "shape", "number"),
    [
        ("cpu", (8, 1024, 8), 16),
        ("gpu", (8, 1024, 8), 4),
        ("tpu", (4, 4096, 16), 4),
        ("gpu", (8, 8192, 32), 16),
        ("gpu", (1, 48, 4), 2),
    ],
)
def test_an_accelerator_has_few_blocks_as_long_as_their_scores_are_small(platform, shape, number):
    batch, tokens, heads = shape
    blocks = query_blocks(batch, tokens, heads, None, platform)
    assert len(blocks) == number
    assert [start for start, _, _ in blocks] == [0, *(stop for _, stop, _ in blocks[:-1])]
    assert blocks[-1][1] == tokens


def test_kernels_are_sharded_as_batch_and_heads_are():
    axes = {"data": 2, "fsdp": 2, "expert": 1, "tensor": 2}
    assert shard_spec(axes, 8, 2) == P(BATCH, None, "tensor", None)
    assert shard_spec(axes, 6, 2) == P(None, None, "tensor", None)
    assert shard_spec(axes, 8, 1) == P(BATCH, None, None, None)


@pytest.mark.parametrize(
    ("window", "documents", "call", "length"),
    [
        (None, False, "fmhaSoftmax", 0),
        (100, False, "fmhaSoftmax", 100),
        (None, True, "fmhaScaleBiasSoftmax", 0),
        (100, True, "fmhaScaleBiasSoftmax", 0),
    ],
)
def test_cudnn_is_asked_for_what_it_can_do(monkeypatch, window, documents, call, length):
    """JAX's half of the compilation for a GPU, forward and backward: a window is never given beside a bias."""
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    q, k, v = (jax.ShapeDtypeStruct((2, 256, heads, 64), jnp.bfloat16) for heads in (6, 2, 2))
    given = jax.ShapeDtypeStruct((2, 256), jnp.int32) if documents else None
    attend = functools.partial(square_attention, window=window, kernel="cudnn")

    def loss(q, k, v, given):
        return jnp.sum(attend(q, k, v, documents_BxT=given).astype(jnp.float32))

    text = jax.jit(jax.grad(loss, (0, 1, 2))).trace(q, k, v, given).lower(lowering_platforms=("cuda",)).as_text()
    assert re.findall(r"custom_call @__cudnn\$(\w+)", text) == [call, f"{call}Backward"]
    for name, value in (("sliding_window_length", length), ("mask_type", "CAUSAL")):
        assert re.findall(rf"{name}\W+22: (?:\W+22)?(\w+?)(?:\W+22)?[,}}]", text) == [str(value)] * 2
