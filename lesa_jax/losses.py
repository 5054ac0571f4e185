"""Cross-entropy that never holds a [tokens, vocab] tensor."""

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
