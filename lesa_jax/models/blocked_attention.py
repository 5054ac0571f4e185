"""Causal attention in plain XLA, without all scores at once: on a CPU, and elsewhere where no kernel fits."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Int

from lesa_jax.parallel.mesh import platform_of

# Scores of one block of queries stay in a processor's cache up to this many bytes; each block is compiled.
SCORE_BYTES = 3 << 20
SMALLEST_BLOCK, LARGEST_BLOCK, MOST_BLOCKS = 32, 128, 16
# An accelerator has no such cache, and compiles for minutes where there are many blocks: so few as there is room for.
SCORE_BYTES_ON_DEVICE, FEWEST_BLOCKS = 1 << 30, 4

SAVED = "attention"  # the name of what a rule for rematerialisation may keep of attention

Window = Int[Array, ""] | int | None


def _same(
    queries_BxQ: Int[Array, "batch queries"], keys_BxS: Int[Array, "batch keys"]
) -> Bool[Array, "batch 1 queries keys"]:
    return (queries_BxQ[:, :, None] == keys_BxS[:, None, :])[:, None]


def query_blocks(
    batch: int, tokens: int, heads: int, window: int | None, platform: str = "cpu"
) -> list[tuple[int, int, int]]:
    """(start, stop) of each block's queries, and the first key in their reach; its last key is stop - 1."""
    on_cpu = platform == "cpu"
    size = (SCORE_BYTES if on_cpu else SCORE_BYTES_ON_DEVICE) // (4 * batch * heads * tokens)
    size = min(size, LARGEST_BLOCK if on_cpu else -(-tokens // FEWEST_BLOCKS))
    size = max(size, SMALLEST_BLOCK, -(-tokens // MOST_BLOCKS))
    return [
        (start, min(start + size, tokens), max(0, start - window + 1) if window else 0)
        for start in range(0, tokens, size)
    ]


def attention_by_blocks(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, window: Window, documents_BxT, cap: float | None = None):
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
    static = window if isinstance(window, int) else None
    blocks = query_blocks(batch, tokens, heads, static, platform_of(q_BxTxHxD))

    def scores(q, k, start: int, stop: int, first: int, reach, documents) -> Any:
        """Scores [batch, kv_heads, group, queries, keys] of a block, scaled and capped, -inf out of reach."""
        s = jnp.einsum("bkgqd,bksd->bkgqs", q, k, preferred_element_type=jnp.float32) * width**-0.5
        s = s if cap is None else cap * jnp.tanh(s / cap)
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
            ds = p * (dp - delta[:, :, :, start:stop]) * width**-0.5
            if cap is not None:  # out of reach p is 0 already
                ds = ds * (1 - jnp.square(jnp.where(jnp.isfinite(s), s, 0) / cap))
            ds = ds.astype(q.dtype)
            dq.append(jnp.einsum("bkgqs,bksd->bkgqd", ds, keys))
            dk = dk.at[:, :, first:stop].add(jnp.einsum("bkgqs,bkgqd->bksd", ds, q_block))
            dv = dv.at[:, :, first:stop].add(jnp.einsum("bkgqs,bkgqd->bksd", p.astype(g.dtype), g_block))
        return jnp.concatenate(dq, axis=3), dk.astype(k.dtype), dv.astype(v.dtype), None, None

    attend.defvjp(forward, backward)
    output = attend(q, k, v, window, documents_BxT)
    return output.transpose(0, 3, 1, 2, 4).reshape(batch, tokens, heads, width)
