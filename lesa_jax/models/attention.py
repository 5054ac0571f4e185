"""The one place where tokens look at each other."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from lesa_jax.models.splash import splash_attention, splash_fits

# What `layer_windows` writes for a layer without a window: longer than any sequence, and safe to subtract in int32.
UNLIMITED = 2**30
# Scores of one block of queries stay in a processor's cache up to this many bytes; each block is compiled.
SCORE_BYTES = 3 << 20
SMALLEST_BLOCK, LARGEST_BLOCK, MOST_BLOCKS = 32, 128, 16

SAVED = "attention"  # the name of what a rule for rematerialisation may keep of attention
# The mesh's axes (`lesa_jax.sharding`, which needs the models and so cannot be imported here) of sequences and heads.
BATCH, HEADS = ("data", "fsdp"), "tensor"
CUDNN_HEAD_DIM = 128  # the widest head that cuDNN can do on every GPU

Window = Int[Array, ""] | int | None
Implementation = Literal["blocks", "splash", "cudnn", "xla"]


def layer_windows(windows: tuple[int | None, ...]) -> tuple[int | None, Int[Array, " layers"] | None]:
    """The windows of a run of layers: one for all of them, or else an array with one for each."""
    if len(set(windows)) <= 1:
        return (windows[0] if windows else None), None
    return None, jnp.array([UNLIMITED if window is None else window for window in windows], jnp.int32)


def causal_attention(
    q_BxTxHxD: Float[Array, "batch tokens heads head_dim"],
    k_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    v_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    window: Window = None,
    documents_BxT: Int[Array, "batch tokens"] | None = None,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Each token's softmax average of its predecessors' values and its own; the softmax is float32.

    `window` counts the tokens in reach, the token itself included, so that 1 sees only itself. An int is a property
    of the program; an array holds it per layer inside a scan; None means every predecessor. With `documents_BxT`, a
    number for each token, tokens see only those of the same number.
    """
    if isinstance(window, jax.Array):  # to the kernels a window is a property of the program
        return _attention_by_blocks(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, window, documents_BxT)
    backend, (_, tokens, _, head_dim) = jax.default_backend(), q_BxTxHxD.shape
    window = None if window is None or window >= tokens else window
    match choose_implementation(backend, q_BxTxHxD.dtype, tokens, head_dim):
        case "blocks":
            return _attention_by_blocks(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, window, documents_BxT)
        case "xla":
            return square_attention(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, window, documents_BxT)
        case "cudnn":
            attend = functools.partial(square_attention, window=window, kernel="cudnn")
        case "splash":
            attend = functools.partial(splash_attention, window=window, saved=SAVED, interpret=backend != "tpu")
    return on_shards(attend, q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, documents_BxT)


def choose_implementation(backend: str, dtype: DTypeLike, tokens: int, head_dim: int) -> Implementation:
    """What computes attention with a window that is a property of the program.

    cuDNN's kernel is for half precision, and JAX differentiates it for an even number of tokens only
    (`check_is_flash_attention` in jax/_src/cudnn/fused_attention_stablehlo.py); it raises where it cannot.
    """
    if backend == "cpu":
        return "blocks"
    if backend == "tpu" and splash_fits(tokens, head_dim, dtype):
        return "splash"
    cudnn_fits = tokens % 2 == 0 and head_dim % 8 == 0 and head_dim <= CUDNN_HEAD_DIM
    if backend == "gpu" and jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16) and cudnn_fits:
        return "cudnn"
    return "xla"


def on_shards(
    attend: Callable[..., Any],
    q_BxTxHxD: Float[Array, "batch tokens heads head_dim"],
    k_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    v_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    documents_BxT: Int[Array, "batch tokens"] | None,
) -> Float[Array, "batch tokens heads head_dim"]:
    """`attend(q, k, v, documents_BxT=...)` for each device's sequences and heads: XLA cannot partition a kernel.

    The mesh is the one that the arguments lie on; a traced array knows it.
    """
    mesh = jax.typeof(q_BxTxHxD).sharding.mesh
    if mesh.empty or mesh.size == 1:
        return attend(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, documents_BxT=documents_BxT)
    spec = shard_spec(mesh.shape, q_BxTxHxD.shape[0], k_BxTxKxD.shape[2])
    return jax.shard_map(
        lambda q, k, v, documents: attend(q, k, v, documents_BxT=documents),
        mesh=mesh,
        in_specs=(spec, spec, spec, P(spec[0])),
        out_specs=spec,
        check_vma=False,  # the kernels' results do not say along which axes they vary
    )(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, documents_BxT)


def shard_spec(axes: Mapping[str, int], batch: int, kv_heads: int) -> P:
    """[batch, tokens, heads, head_dim] on a mesh; axes that do not divide, as for an evaluation's last rows, are left
    out: their devices all do the same."""
    rows = BATCH if batch % math.prod(axes[axis] for axis in BATCH) == 0 else None
    return P(rows, None, HEADS if kv_heads % axes[HEADS] == 0 else None, None)


def square_attention(
    q_BxTxHxD: Float[Array, "batch tokens heads head_dim"],
    k_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    v_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    window: int | None = None,
    documents_BxT: Int[Array, "batch tokens"] | None = None,
    kernel: Literal["xla", "cudnn"] = "xla",
) -> Float[Array, "batch tokens heads head_dim"]:
    """`causal_attention` by JAX's own function: XLA holds all scores, cuDNN none, and both a mask of documents.

    cuDNN adds the mask as a bias, [batch, 1, tokens, tokens], and takes no window beside a bias before version 9.10.2
    (cudnn-frontend: "Left and right bounds are only supported with is_dropout=False, is_bias=False"); so with documents
    the window is part of the mask.
    """
    reach = None if window is None else (window - 1, 0)
    mask = None
    if documents_BxT is not None:
        mask = _same(documents_BxT, documents_BxT)
        if window is not None:
            position = jnp.arange(documents_BxT.shape[1])
            mask, reach = mask & (position[:, None] - position[None, :] < window)[None, None], None
    return jax.nn.dot_product_attention(
        q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, mask=mask, is_causal=True, local_window_size=reach, implementation=kernel
    )


def _same(
    queries_BxQ: Int[Array, "batch queries"], keys_BxS: Int[Array, "batch keys"]
) -> Bool[Array, "batch 1 queries keys"]:
    return (queries_BxQ[:, :, None] == keys_BxS[:, None, :])[:, None]


def _attention_by_blocks(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, window: Window, documents_BxT):
    """Attention of some dozens of queries at a time to the keys that they can reach.

    Half of the work of the square, and score matrices that stay in the cache. The backward pass keeps the softmax's
    normaliser and computes the scores again (as in FlashAttention, arXiv 2205.14135) instead of storing them: a third
    of the time on a CPU at 8 x 256 tokens, and memory that does not grow with the square of the sequence.
    """
    batch, tokens, heads, width = q_BxTxHxD.shape
    kv_heads = k_BxTxKxD.shape[2]
    q_BxTxHxD, k_BxTxKxD, v_BxTxKxD = (checkpoint_name(x, SAVED) for x in (q_BxTxHxD, k_BxTxKxD, v_BxTxKxD))
    q = q_BxTxHxD.reshape(batch, tokens, kv_heads, heads // kv_heads, width).transpose(0, 2, 3, 1, 4)
    k, v = (x.transpose(0, 2, 1, 3) for x in (k_BxTxKxD, v_BxTxKxD))
    size = SCORE_BYTES // (4 * batch * heads * tokens)
    size = max(min(size, LARGEST_BLOCK), SMALLEST_BLOCK, -(-tokens // MOST_BLOCKS))
    static = window if isinstance(window, int) else None
    # (start, stop) of a block's queries and the first key in their reach.
    blocks = [
        (start, min(start + size, tokens), max(0, start - static + 1) if static else 0)
        for start in range(0, tokens, size)
    ]

    def scores(q, k, start: int, stop: int, first: int, reach, documents) -> Any:
        """Scaled scores [batch, kv_heads, group, queries, keys] of a block, -inf out of reach."""
        s = jnp.einsum("bkgqd,bksd->bkgqs", q, k, preferred_element_type=jnp.float32) * width**-0.5
        age_QxS = jnp.arange(start, stop)[:, None] - jnp.arange(first, stop)[None, :]
        seen = (age_QxS >= 0 if reach is None else (age_QxS >= 0) & (age_QxS < reach))[None, None]
        if documents is not None:
            seen = seen & _same(documents[:, start:stop], documents[:, first:stop])
        return jnp.where(seen[:, :, None], s, -jnp.inf)

    @jax.custom_vjp
    def attend(q, k, v, reach, documents):
        return forward(q, k, v, reach, documents)[0]

    def forward(q, k, v, reach, documents):
        outputs, normalisers = [], []
        for start, stop, first in blocks:
            s = scores(q[:, :, :, start:stop], k[:, :, first:stop], start, stop, first, reach, documents)
            largest = jnp.max(s, axis=-1, keepdims=True)  # finite: a token sees itself
            e = jnp.exp(s - largest)
            total = jnp.sum(e, axis=-1, keepdims=True)
            product = jnp.einsum(
                "bkgqs,bksd->bkgqd", e.astype(v.dtype), v[:, :, first:stop], preferred_element_type=jnp.float32
            )
            outputs.append((product / total).astype(v.dtype))
            normalisers.append(largest + jnp.log(total))
        output, normaliser = jnp.concatenate(outputs, axis=3), jnp.concatenate(normalisers, axis=3)
        output, normaliser = checkpoint_name(output, SAVED), checkpoint_name(normaliser, SAVED)
        return output, (q, k, v, reach, documents, output, normaliser)

    def backward(saved, g):
        q, k, v, reach, documents, output, normaliser = saved
        # sum_s p_s dp_s of each query, since output = sum_s p_s v_s.
        delta = jnp.sum((g * output).astype(jnp.float32), axis=-1, keepdims=True)
        dq, dk, dv = [], jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
        for start, stop, first in blocks:
            q_block, g_block, keys = q[:, :, :, start:stop], g[:, :, :, start:stop], k[:, :, first:stop]
            s = scores(q_block, keys, start, stop, first, reach, documents)
            p = jnp.exp(s - normaliser[:, :, :, start:stop])
            dp = jnp.einsum("bkgqd,bksd->bkgqs", g_block, v[:, :, first:stop], preferred_element_type=jnp.float32)
            ds = (p * (dp - delta[:, :, :, start:stop]) * width**-0.5).astype(q.dtype)
            dq.append(jnp.einsum("bkgqs,bksd->bkgqd", ds, keys))
            dk = dk.at[:, :, first:stop].add(jnp.einsum("bkgqs,bkgqd->bksd", ds, q_block))
            dv = dv.at[:, :, first:stop].add(jnp.einsum("bkgqs,bkgqd->bksd", p.astype(g.dtype), g_block))
        return jnp.concatenate(dq, axis=3), dk.astype(k.dtype), dv.astype(v.dtype), None, None

    attend.defvjp(forward, backward)
    output = attend(q, k, v, window, documents_BxT)
    return output.transpose(0, 3, 1, 2, 4).reshape(batch, tokens, heads, width)
