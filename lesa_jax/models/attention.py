"""The one place where tokens look at each other."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from lesa_jax.models.blocked_attention import SAVED, Window, _same, attention_by_blocks
from lesa_jax.models.splash_attention import splash_attention, splash_refusals
from lesa_jax.parallel.mesh import AXIS_RULES, BATCH, dividing, mesh_of, platform_of

LONGEST_SQUARE = 1024  # tokens of which all scores may be held where no kernel fits
CUDNN_HEAD_DIM = 128  # the widest head that cuDNN can do on every GPU
Implementation = Literal["blocks", "splash", "cudnn", "xla"]


def causal_attention(
    q_BxTxHxD: Float[Array, "batch tokens heads head_dim"],
    k_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    v_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    window: Window = None,
    documents_BxT: Int[Array, "batch tokens"] | None = None,
    cap: float | None = None,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Each token's softmax average of its predecessors' values and its own; the softmax is float32.

    `window` counts the tokens in reach, the token itself included, so that 1 sees only itself. An int is a property
    of the program; an array holds it per layer inside a scan; None means every predecessor. With `documents_BxT`, a
    number for each token, tokens see only those of the same number. With a `cap`, scores become cap tanh(score / cap).
    """
    if isinstance(window, jax.Array):  # to the kernels a window is a property of the program
        return attention_by_blocks(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, window, documents_BxT, cap)
    backend, (_, tokens, _, head_dim) = platform_of(q_BxTxHxD), q_BxTxHxD.shape
    window = None if window is None or window >= tokens else window
    match choose_implementation(backend, q_BxTxHxD.dtype, tokens, head_dim, cap):
        case "blocks":
            return attention_by_blocks(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, window, documents_BxT, cap)
        case "xla":
            return square_attention(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, window, documents_BxT)
        case "cudnn":
            attend = functools.partial(square_attention, window=window, kernel="cudnn")
        case "splash":
            attend = functools.partial(
                splash_attention, window=window, cap=cap, saved=SAVED, interpret=backend != "tpu"
            )
    return on_shards(attend, q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, documents_BxT)


def choose_implementation(
    backend: str, dtype: DTypeLike, tokens: int, head_dim: int, cap: float | None = None
) -> Implementation:
    """What computes attention with a window that is a property of the program.

    Where no kernel fits, as in float32 on a GPU, the scores of a whole long square would fill the memory: 69 GB at
    8 x 8192 tokens and 32 heads, of which blocks hold a sixteenth.
    """
    if backend == "cpu":
        return "blocks"
    if no_kernel(backend, dtype, tokens, head_dim, cap) is None:
        return "splash" if backend == "tpu" else "cudnn"
    return "xla" if tokens <= LONGEST_SQUARE and cap is None else "blocks"


def no_kernel(backend: str, dtype: DTypeLike, tokens: int, head_dim: int, cap: float | None) -> str | None:
    """Why an accelerator's attention kernel does not fit, in words; None where it does.

    JAX differentiates cuDNN's for an even number of tokens only (`check_is_flash_attention` in
    jax/_src/cudnn/fused_attention_stablehlo.py), and raises where it cannot.
    """
    name = jnp.dtype(dtype).name
    if backend == "tpu":
        reasons = splash_refusals(tokens, head_dim, dtype)
    elif backend == "gpu":
        reasons = [
            (name not in ("bfloat16", "float16"), f"it is for half precision, not {name}"),
            (cap is not None, "it has no soft cap"),
            (tokens % 2 != 0, f"{tokens} tokens are an odd number"),
            (head_dim % 8 != 0 or head_dim > CUDNN_HEAD_DIM, f"heads of {head_dim}: it takes 8, 16, ..., 128"),
        ]
    else:
        reasons = [(True, f"none is known for {backend}")]
    return next((reason for met, reason in reasons if met), None)


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
    mesh = mesh_of(q_BxTxHxD)
    if mesh is None:
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
    return P(*dividing((BATCH, None, AXIS_RULES["kv_heads"], None), (batch, 1, kv_heads, 1), axes))


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
