"""The one place where tokens look at each other."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

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
    documents_BxT: Int[Array, "batch tokens"] | None = None,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Each token's softmax average of its predecessors' values and its own; the softmax is float32.

    `window` counts the tokens in reach, the token itself included, so that 1 sees only itself. An int is a property
    of the program; an array holds it per layer inside a scan; None means every predecessor. With `documents_BxT`, a
    number for each token, tokens see only those of the same number.
    """
    if isinstance(window, jax.Array) or jax.default_backend() == "cpu":
        return _attention_by_blocks(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, window, documents_BxT)
    reach = None if window is None else (window - 1, 0)
    mask = None if documents_BxT is None else _same(documents_BxT, documents_BxT)
    # cuDNN's kernel never holds the scores; it exists for half precision only and raises where it cannot.
    half = q_BxTxHxD.dtype in (jnp.bfloat16, jnp.float16)
    kernel = "cudnn" if jax.default_backend() == "gpu" and half else None
    return jax.nn.dot_product_attention(
        q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, mask=mask, is_causal=True, local_window_size=reach, implementation=kernel
    )


def _same(
    queries_BxQ: Int[Array, "batch queries"], keys_BxS: Int[Array, "batch keys"]
) -> Bool[Array, "batch 1 queries keys"]:
    return (queries_BxQ[:, :, None] == keys_BxS[:, None, :])[:, None]


def _attention_by_blocks(
    q_BxTxHxD: Float[Array, "batch tokens heads head_dim"],
    k_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    v_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    window: Int[Array, ""] | int | None,
    documents_BxT: Int[Array, "batch tokens"] | None,
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
        mask = mask_QxS[None, None]
        if documents_BxT is not None:
            mask = mask & _same(documents_BxT[:, start:stop], documents_BxT[:, first:stop])
        q, k, v = q_BxTxHxD[:, start:stop], k_BxTxKxD[:, first:stop], v_BxTxKxD[:, first:stop]
        blocks.append(jax.nn.dot_product_attention(q, k, v, mask=mask))
    return jnp.concatenate(blocks, axis=1)
