"""Cross-entropy that never holds a [tokens, vocab] tensor."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from lesa_jax.parallel.mesh import AXIS_RULES, BATCH, mesh_of

# 512 tokens of a 128k vocabulary are 256 MiB of float32 logits.
CHUNK_TOKENS = 512


@flax.struct.dataclass
class Head:
    """What makes logits of hidden states: cap tanh((hidden weight.T + bias) / cap), without bias or cap where None.

    Attributes:
      weight: [vocab, hidden].
      bias: [vocab].
      cap: the bound of the logits.
    """

    weight: Any  # for JAX also puts in what are no arrays
    bias: Any = None
    cap: float | None = flax.struct.field(pytree_node=False, default=None)


def logits_of(
    hidden: Float[Array, "*shape hidden"], head: Head, dtype: DTypeLike | None = None
) -> Float[Array, "*shape vocab"]:
    """Logits in `dtype`, by default that of the hidden states, in which the product runs in any case."""
    logits = jnp.einsum("...e,ve->...v", hidden, head.weight.astype(hidden.dtype), preferred_element_type=dtype)
    if head.bias is not None:
        logits = logits + jnp.broadcast_to(head.bias.astype(logits.dtype), logits.shape)
    return logits if head.cap is None else head.cap * jnp.tanh(logits / head.cap)


def token_nll(
    hidden_BxTxE: Float[Array, "batch tokens hidden"],
    head: Head,
    targets_BxT: Int[Array, "batch tokens"],
    chunk_tokens: int = CHUNK_TOKENS,
) -> Float[Array, "batch tokens"]:
    """Negative log-likelihood of each target in nats, float32.

    Logits exist for `chunk_tokens` tokens at a time, in the forward pass and, recomputed, in the backward pass. The
    matrix product runs in the dtype of `hidden_BxTxE` and accumulates in float32.
    """
    return by_chunks(
        lambda hidden, targets: chunk_nll(hidden, head, targets)[0], hidden_BxTxE, targets_BxT, chunk_tokens
    )


def token_scores(
    hidden_BxTxE: Float[Array, "batch tokens hidden"],
    head: Head,
    targets_BxT: Int[Array, "batch tokens"],
    chunk_tokens: int = CHUNK_TOKENS,
) -> tuple[Float[Array, "batch tokens"], Bool[Array, "batch tokens"]]:
    """`token_nll`, and whether each target is the likeliest token, of several equal ones the first."""

    def of_chunk(hidden: Array, targets: Array) -> tuple[Array, Array]:
        nll_N, logits_NxV = chunk_nll(hidden, head, targets)
        return nll_N, jnp.argmax(logits_NxV, axis=-1) == targets

    return by_chunks(of_chunk, hidden_BxTxE, targets_BxT, chunk_tokens)


def chunk_nll(
    hidden_NxE: Float[Array, "chunk hidden"], head: Head, targets_N: Int[Array, " chunk"]
) -> tuple[Float[Array, " chunk"], Float[Array, "chunk vocab"]]:
    """Negative log-likelihoods, and the logits that they come from."""
    logits_NxV = logits_of(hidden_NxE, head, jnp.float32)
    chosen_N = jnp.take_along_axis(logits_NxV, targets_N[:, None], axis=-1)[:, 0]
    return jax.nn.logsumexp(logits_NxV, axis=-1) - chosen_N, logits_NxV


def by_chunks(
    of_chunk: Callable[[Array, Array], Any],
    hidden_BxTxE: Float[Array, "batch tokens hidden"],
    targets_BxT: Int[Array, "batch tokens"],
    chunk_tokens: int,
) -> Any:
    """What `of_chunk` makes of so many tokens at a time, an array or several [chunk], as arrays [batch, tokens].

    What it need not make it should leave out: of a loop's results none is dropped before devices share the work.
    """
    hidden_NxE = hidden_BxTxE.reshape(-1, hidden_BxTxE.shape[-1])
    targets_N = targets_BxT.reshape(-1)
    count = targets_N.shape[0]
    size = min(chunk_tokens, count)
    chunks = -(-count // size)
    fill = chunks * size - count
    hidden_CxNxE = jnp.pad(hidden_NxE, ((0, fill), (0, 0))).reshape(chunks, size, -1)
    targets_CxN = jnp.pad(targets_N, (0, fill)).reshape(chunks, size)
    found = jax.lax.map(lambda chunk: jax.checkpoint(of_chunk)(*chunk), (hidden_CxNxE, targets_CxN))
    return jax.tree.map(lambda x: x.reshape(-1)[:count].reshape(targets_BxT.shape), found)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def summed_nll(
    hidden_BxTxE: Float[Array, "batch tokens hidden"],
    head: Head,
    targets_BxT: Int[Array, "batch tokens"],
    weights_BxT: Float[Array, "batch tokens"],
    train_head: bool,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Float[Array, ""]:
    """sum(weights * negative log-likelihood of the targets) in nats, float32, for training.

    The gradient is taken in the forward pass, chunk by chunk while the logits are there: two matrix products with the
    head for a frozen one, three for a trained one, and none is computed again (as in Liger, arXiv 2410.10989). On a
    mesh each device does so for its own sequences, with the whole head but for what `tensor` shares: the head is
    gathered once, not for every chunk, and its gradient is added up over devices once.

    Args:
      hidden_BxTxE: after the final norm; the matrix products run in its dtype and accumulate in float32.
      head: makes the logits.
      targets_BxT: token ids.
      weights_BxT: of each token; gets no gradient.
      train_head: whether the head gets a gradient.
      chunk_tokens: logits exist for about as many tokens at a time.
    """
    return _summed(hidden_BxTxE, head, targets_BxT, weights_BxT, chunk_tokens, False, False)[0]


def _summed(hidden, head: Head, targets, weights, chunk_tokens: int, with_hidden: bool, with_head: bool):
    """The sum, its gradient by the hidden states and its gradient by the head, each if asked for."""
    head = replace(head, weight=head.weight.astype(hidden.dtype))
    mesh = mesh_of(hidden)
    if mesh is None:
        return _summed_here(hidden, head, targets, weights, chunk_tokens, with_hidden, with_head)
    shares, rows = AXIS_RULES["embed"], P(BATCH)

    def of_device(hidden, head, targets, weights):
        total, parts, gradient = _summed_here(hidden, head, targets, weights, chunk_tokens, with_hidden, with_head)
        if gradient is not None:
            weight = jax.lax.psum_scatter(gradient.weight, shares, scatter_dimension=1, tiled=True)
            weight = jax.lax.psum(weight, tuple(axis for axis in BATCH if axis != shares))
            gradient = replace(
                gradient, weight=weight, bias=jax.tree.map(lambda x: jax.lax.psum(x, BATCH), gradient.bias)
            )
        return jax.lax.psum(total, BATCH), parts, gradient

    of_head = replace(head, weight=P(None, shares), bias=None if head.bias is None else P()) if with_head else P()
    return jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(rows, P(), rows, rows),
        out_specs=(P(), rows, of_head),
        axis_names=set(BATCH),
        check_vma=False,  # a scan's first carry is the same on all devices, its last is not
    )(hidden, head, targets, weights)


def _summed_here(hidden, head: Head, targets, weights, chunk_tokens: int, with_hidden: bool, with_head: bool):
    """`_summed` of one device's sequences, with a head in the dtype of the products."""
    batch, tokens, width = hidden.shape
    size = min(tokens, max(1, chunk_tokens // batch))
    chunks = -(-tokens // size)

    def cut(x):
        x = jnp.pad(x, ((0, 0), (0, chunks * size - tokens), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(batch, chunks, size, *x.shape[2:]), 1, 0)

    def chunk_sum(carry, chunk):
        total, head_gradient = carry
        x, y, w = chunk
        logits = logits_of(x, head, jnp.float32)
        log_sum = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        chosen = jnp.take_along_axis(logits, y[..., None], axis=-1)
        total = total + jnp.sum(w * (log_sum - chosen)[..., 0])
        if not with_hidden:
            return (total, head_gradient), None
        hit = jnp.arange(logits.shape[-1])[None, None, :] == y[..., None]
        wide = w[..., None] * (jnp.exp(logits - log_sum) - hit)
        if head.cap is not None:
            wide = wide * (1 - jnp.square(logits / head.cap))
        logit_gradient = wide.astype(hidden.dtype)
        if with_head:
            product = jnp.einsum("btv,bte->ve", logit_gradient, x, preferred_element_type=jnp.float32)
            bias = None if head.bias is None else head_gradient.bias + jnp.sum(wide, axis=(0, 1))
            head_gradient = replace(head, weight=head_gradient.weight + product, bias=bias)
        return (total, head_gradient), jnp.einsum("btv,ve->bte", logit_gradient, head.weight)

    start = jnp.zeros(()), jax.tree.map(lambda x: jnp.zeros(x.shape), head) if with_head else None
    (total, head_gradient), parts = jax.lax.scan(chunk_sum, start, (cut(hidden), cut(targets), cut(weights)))
    if parts is not None:
        parts = jnp.moveaxis(parts, 0, 1).reshape(batch, chunks * size, width)[:, :tokens]
    return total, parts, head_gradient


def _summed_forward(hidden, head, targets, weights, train_head: bool, chunk_tokens: int) -> Any:
    total, hidden_gradient, head_gradient = _summed(hidden, head, targets, weights, chunk_tokens, True, train_head)
    if head_gradient is not None:
        head_gradient = jax.tree.map(lambda gradient, x: gradient.astype(x.dtype), head_gradient, head)
    return total, (hidden_gradient, head_gradient)


def _summed_backward(train_head: bool, chunk_tokens: int, gradients: Any, upstream: Array) -> Any:
    hidden, head = jax.tree.map(lambda x: (upstream * x).astype(x.dtype), gradients)
    return hidden, head, None, None


summed_nll.defvjp(_summed_forward, _summed_backward)
