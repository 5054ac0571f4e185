"""The parts of a layer that look at one token at a time."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lesa_jax.checkpoint.names import Tree


def linear(params: Tree, x: Float[Array, "*shape features"]) -> Float[Array, "*shape out"]:
    """x @ weight.T, plus the bias where the checkpoint has one. `weight` is [out, in]."""
    y = jnp.einsum("...i,oi->...o", x, params["weight"].astype(x.dtype))
    if "bias" in params:
        y = y + jnp.broadcast_to(params["bias"].astype(x.dtype), y.shape)
    return y


def rms_norm(
    params: Tree, x_BxTxE: Float[Array, "batch tokens hidden"], eps: float
) -> Float[Array, "batch tokens hidden"]:
    """x / sqrt(mean(x^2) + eps) * weight; the statistics are float32."""
    wide = x_BxTxE.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return (wide * scale).astype(x_BxTxE.dtype) * params["weight"].astype(x_BxTxE.dtype)[None, None, :]


def feed_forward(
    gate: Tree, up: Tree, down: Tree, x_BxTxE: Float[Array, "batch tokens hidden"]
) -> Float[Array, "batch tokens hidden"]:
    """down(silu(gate(x)) * up(x))."""
    return linear(down, jax.nn.silu(linear(gate, x_BxTxE)) * linear(up, x_BxTxE))
