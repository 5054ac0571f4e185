"""Cross-entropy that never holds a [tokens, vocab] tensor."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# 512 tokens of a 128k vocabulary are 256 MiB of float32 logits.
CHUNK_TOKENS = 512


def token_nll(
    hidden_BxTxE: Float[Array, "batch tokens hidden"],
    head_VxE: Float[Array, "vocab hidden"],
    targets_BxT: Int[Array, "batch tokens"],
    chunk_tokens: int = CHUNK_TOKENS,
) -> Float[Array, "batch tokens"]:
    """Negative log-likelihood of each target in nats, float32.

    Logits exist for `chunk_tokens` tokens at a time, in the forward pass and, recomputed, in the backward pass. The
    matrix product runs in the dtype of `hidden_BxTxE` and accumulates in float32.
    """
    head_VxE = head_VxE.astype(hidden_BxTxE.dtype)
    hidden_NxE = hidden_BxTxE.reshape(-1, hidden_BxTxE.shape[-1])
    targets_N = targets_BxT.reshape(-1)
    count = targets_N.shape[0]
    size = min(chunk_tokens, count)
    chunks = -(-count // size)
    fill = chunks * size - count
    hidden_CxNxE = jnp.pad(hidden_NxE, ((0, fill), (0, 0))).reshape(chunks, size, -1)
    targets_CxN = jnp.pad(targets_N, (0, fill)).reshape(chunks, size)

    @jax.checkpoint
    def chunk_nll(chunk: tuple[Array, Array]) -> Float[Array, " chunk"]:
        return _nll(chunk[0], head_VxE, chunk[1])

    nll_N = jax.lax.map(chunk_nll, (hidden_CxNxE, targets_CxN)).reshape(-1)[:count]
    return nll_N.reshape(targets_BxT.shape)


def _nll(
    hidden_NxE: Float[Array, "tokens hidden"], head_VxE: Float[Array, "vocab hidden"], targets_N: Int[Array, " tokens"]
) -> Float[Array, " tokens"]:
    logits_NxV = jnp.einsum("ne,ve->nv", hidden_NxE, head_VxE, preferred_element_type=jnp.float32)
    chosen_N = jnp.take_along_axis(logits_NxV, targets_N[:, None], axis=-1)[:, 0]
    return jax.nn.logsumexp(logits_NxV, axis=-1) - chosen_N


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def summed_nll(
    hidden_BxTxE: Float[Array, "batch tokens hidden"],
    head_VxE: Float[Array, "vocab hidden"],
    targets_BxT: Int[Array, "batch tokens"],
    weights_BxT: Float[Array, "batch tokens"],
    train_head: bool,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Float[Array, ""]:
    """sum(weights * negative log-likelihood of the targets) in nats, float32, for training.

    The gradient is taken in the forward pass, chunk by chunk while the logits are there: two matrix products with the
    head for a frozen one, three for a trained one, and none is computed again (as in Liger, arXiv 2410.10989). Chunks
    are cut along the sequence, so that a batch spread over devices stays where it is.

    Args:
      hidden_BxTxE: after the final norm; the matrix products run in its dtype and accumulate in float32.
      head_VxE: output projection.
      targets_BxT: token ids.
      weights_BxT: of each token; gets no gradient.
      train_head: whether the head gets a gradient.
      chunk_tokens: logits exist for about as many tokens at a time.
    """
    return _summed(hidden_BxTxE, head_VxE, targets_BxT, weights_BxT, chunk_tokens, False, False)[0]


def _summed(hidden, head, targets, weights, chunk_tokens: int, with_hidden: bool, with_head: bool):
    """The sum, its gradient by the hidden states and its gradient by the head, each if asked for."""
    batch, tokens, width = hidden.shape
    size = min(tokens, max(1, chunk_tokens // batch))
    chunks = -(-tokens // size)
    head = head.astype(hidden.dtype)

    def cut(x):
        x = jnp.pad(x, ((0, 0), (0, chunks * size - tokens), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(batch, chunks, size, *x.shape[2:]), 1, 0)

    def chunk_sum(carry, chunk):
        total, head_gradient = carry
        x, y, w = chunk
        logits = jnp.einsum("bte,ve->btv", x, head, preferred_element_type=jnp.float32)
        log_sum = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        chosen = jnp.take_along_axis(logits, y[..., None], axis=-1)
        total = total + jnp.sum(w * (log_sum - chosen)[..., 0])
        if not with_hidden:
            return (total, head_gradient), None
        hit = jnp.arange(logits.shape[-1])[None, None, :] == y[..., None]
        logit_gradient = (w[..., None] * (jnp.exp(logits - log_sum) - hit)).astype(hidden.dtype)
        if with_head:
            head_gradient = head_gradient + jnp.einsum(
                "btv,bte->ve", logit_gradient, x, preferred_element_type=jnp.float32
            )
        return (total, head_gradient), jnp.einsum("btv,ve->bte", logit_gradient, head)

    start = jnp.zeros(()), jnp.zeros(head.shape) if with_head else None
    (total, head_gradient), parts = jax.lax.scan(chunk_sum, start, (cut(hidden), cut(targets), cut(weights)))
    if parts is not None:
        parts = jnp.moveaxis(parts, 0, 1).reshape(batch, chunks * size, width)[:, :tokens]
    return total, parts, head_gradient


def _summed_forward(hidden, head, targets, weights, train_head: bool, chunk_tokens: int) -> Any:
    total, hidden_gradient, head_gradient = _summed(hidden, head, targets, weights, chunk_tokens, True, train_head)
    if head_gradient is not None:
        head_gradient = head_gradient.astype(head.dtype)
    return total, (hidden_gradient, head_gradient)


def _summed_backward(train_head: bool, chunk_tokens: int, gradients: Any, upstream: Array) -> Any:
    scaled = [None if x is None else (upstream * x).astype(x.dtype) for x in gradients]
    return *scaled, None, None


summed_nll.defvjp(_summed_forward, _summed_backward)
