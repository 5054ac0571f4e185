"""The one place where tokens look at each other."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# What `layer_windows` writes for a layer without a window: longer than any sequence, and safe to subtract in int32.
UNLIMITED = 2**30
QUERY_BLOCK = 128
MOST_BLOCKS = 8


def layer_windows(windows: tuple[int | None, ...]) -> tuple[int | None, Int[Array, " layers"] | None]:
    """The windows of a run of layers: one for all of them, or else an array with one for each."""
    if len(set(windows)) <= 1:
        return (windows[0] if windows else None), None
    return None, jnp.array([UNLIMITED if window is None else window for window in windows], jnp.int32)


def causal_attention(
    q_BxTxHxD: Float[Array, "batch tokens heads head_dim"],
    k_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    v_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    window: Int[Array, ""] | int | None = None,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Each token's softmax average of its predecessors' values and its own; the softmax is float32.

    `window` counts the tokens in reach, the token itself included, so that 1 sees only itself. An int is a property
    of the program; an array holds it per layer inside a scan; None means every predecessor.
    """
    if isinstance(window, jax.Array) or jax.default_backend() == "cpu":
        return _attention_by_blocks(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, window)
    reach = None if window is None else (window - 1, 0)
    return jax.nn.dot_product_attention(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, is_causal=True, local_window_size=reach)


def _attention_by_blocks(
    q_BxTxHxD: Float[Array, "batch tokens heads head_dim"],
    k_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    v_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    window: Int[Array, ""] | int | None,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Attention of a few hundred queries at a time to the keys that they can reach.

    Half of the work of the square, and score matrices that stay in the cache: three times as fast on a CPU at 1,024
    tokens. At most MOST_BLOCKS blocks, since each is compiled.
    """
    tokens = q_BxTxHxD.shape[1]
    size = max(QUERY_BLOCK, -(-tokens // MOST_BLOCKS))
    blocks = []
    for start in range(0, tokens, size):
        stop = min(start + size, tokens)
        first = max(0, start - window + 1) if isinstance(window, int) else 0
        age_QxS = jnp.arange(start, stop)[:, None] - jnp.arange(first, stop)[None, :]
        mask_QxS = age_QxS >= 0 if window is None else (age_QxS >= 0) & (age_QxS < window)
        q, k, v = q_BxTxHxD[:, start:stop], k_BxTxKxD[:, first:stop], v_BxTxKxD[:, first:stop]
        blocks.append(jax.nn.dot_product_attention(q, k, v, mask=mask_QxS[None, None]))
    return jnp.concatenate(blocks, axis=1)
