"""Causal attention on a TPU: JAX's splash kernel, for packed rows.

The kernel never holds the scores, skips the blocks that the mask leaves empty, and has a backward pass of its own. It
knows grouped queries: a key head is read where it lies by the query heads of its group, not repeated.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

LANES = 128  # of a vector register: blocks of tokens are multiples of it
HEAD_DIMS = 64  # head widths are multiples of it; the kernel pads one that is no multiple of LANES
# A block's tokens (MaxText's default for this kernel), and half of them where a head's row is longer than this, so that
# queries, keys, values, their gradients and the scores of a block fit into 16 MB, VMEM's limit for a kernel.
LARGEST_BLOCK, ROW_BYTES = 512, 512


def splash_refusals(tokens: int, head_dim: int, dtype: DTypeLike) -> list[tuple[bool, str]]:
    """What the kernel cannot do, each with whether it is met here."""
    name = jnp.dtype(dtype).name
    return [
        (name not in ("bfloat16", "float32"), f"it is for bfloat16 and float32, not {name}"),
        (tokens % LANES != 0, f"{tokens} tokens are no multiple of {LANES}"),
        (head_dim % HEAD_DIMS != 0, f"heads of {head_dim} are no multiple of {HEAD_DIMS}"),
    ]


def block_size(tokens: int, head_dim: int, dtype: DTypeLike) -> int:
    """The largest block that divides a sequence of `tokens`, a multiple of LANES."""
    largest = LARGEST_BLOCK if head_dim * jnp.dtype(dtype).itemsize <= ROW_BYTES else LARGEST_BLOCK // 2
    return max(size for size in range(LANES, largest + 1, LANES) if tokens % size == 0)


def splash_mask(tokens: int, window: int | None) -> masks.Mask:
    """What positions may see of each other. `window` counts the token itself, the kernel's left side does not.

    Raises:
      ValueError: a window without any token.
    """
    if window is None or window >= tokens:
        return masks.CausalMask((tokens, tokens))
    if window < 1:
        raise ValueError(f"a window of {window} tokens does not even hold the token itself")
    return masks.LocalMask((tokens, tokens), (window - 1, 0), offset=0)


def splash_attention(
    q_BxTxHxD: Float[Array, "batch tokens heads head_dim"],
    k_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    v_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    window: int | None = None,
    documents_BxT: Int[Array, "batch tokens"] | None = None,
    cap: float | None = None,
    saved: str | None = None,
    interpret: bool = False,
) -> Float[Array, "batch tokens heads head_dim"]:
    """`lesa_jax.models.attention.causal_attention` of the rows and heads of one device.

    Args:
      q_BxTxHxD, k_BxTxKxD, v_BxTxKxD: queries, keys, values.
      window: tokens in reach, the token itself included; None means every predecessor. Not an array: the blocks that
        are skipped are a property of the program.
      documents_BxT: tokens see only those of the same number.
      cap: scores become cap tanh(score / cap).
      saved: the name of output and normaliser for a rule for rematerialisation.
      interpret: run the kernel without a TPU, slowly.

    Raises:
      ValueError: shapes or a mask that the kernel cannot do. It never computes with a weaker mask instead.
    """
    _, tokens, heads, head_dim = q_BxTxHxD.shape
    for met, reason in splash_refusals(tokens, head_dim, q_BxTxHxD.dtype):
        if met:
            raise ValueError(f"splash attention cannot do this: {reason}")
    if k_BxTxKxD.shape[1] != tokens or (documents_BxT is not None and documents_BxT.shape != q_BxTxHxD.shape[:2]):
        raise ValueError("splash attention needs a key, a value and a document's number for every query")
    if not isinstance(window, int | None):
        raise ValueError("splash attention's window is an int: the skipped blocks are a property of the program")
    size = block_size(tokens, head_dim, q_BxTxHxD.dtype)
    attend = kernel.make_splash_mha(
        masks.MultiHeadMask([splash_mask(tokens, window)] * heads),
        block_sizes=kernel.BlockSizes(
            block_q=size,
            block_kv=size,
            block_q_dkv=size,
            block_kv_dkv=size,
            block_q_dq=size,
            block_kv_dq=size,
        ),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=cap,
        residual_checkpoint_name=saved,
        interpret=interpret,
    )
    # The kernel does not scale the scores. Rounded once: head_dim**-0.5 is no number of bfloat16.
    scaled = (q_BxTxHxD.astype(jnp.float32) * head_dim**-0.5).astype(q_BxTxHxD.dtype)
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (scaled, k_BxTxKxD, v_BxTxKxD))
    # A token always sees itself, so no row of the mask is empty; the kernel's softmax would be undefined there.
    segments = None if documents_BxT is None else kernel.SegmentIds(documents_BxT, documents_BxT)
    mixed_BxHxTxD = jnp.asarray(jax.vmap(attend)(q, k, v, segments))  # without residuals it is an array
    return mixed_BxHxTxD.transpose(0, 2, 1, 3)
