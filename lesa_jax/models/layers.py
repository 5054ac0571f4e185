"""The parts of a layer that look at one token at a time."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import Norm
from lesa_jax.models.parts import LORA_DOWN, LORA_UP

# By the names of `families.reading.ACTIVATIONS`.
ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
}


def linear(params: Tree, x: Float[Array, "*shape features"], transposed: bool = False) -> Float[Array, "*shape out"]:
    """x @ weight.T, plus the bias where the checkpoint has one, and an adapter's part where one is trained.

    `weight` is [out, in], or [in, out] if `transposed`.
    """
    y = jnp.einsum("...i,io->...o" if transposed else "...i,oi->...o", x, params["weight"].astype(x.dtype))
    if "bias" in params:
        y = y + jnp.broadcast_to(params["bias"].astype(x.dtype), y.shape)
    if LORA_DOWN in params:
        narrow = jnp.einsum("...i,ri->...r", x, params[LORA_DOWN].astype(x.dtype))
        y = y + jnp.einsum("...r,or->...o", narrow, params[LORA_UP].astype(x.dtype))
    return y


def normalise(params: Tree, x: Float[Array, "*shape features"], norm: Norm) -> Float[Array, "*shape features"]:
    """x, less its mean if `norm.centred`, over the root of its variance; times weight, plus bias, where there are any.

    Statistics are float32. An RMSNorm's weight is multiplied in the dtype of x, as Llama's is; what LayerNorm and a
    shifted weight do is rounded once, at the end, as by transformers.
    """
    wide = x.astype(jnp.float32)
    if norm.centred:
        wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    scaled = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + norm.eps)
    if not (norm.centred or norm.shifted):
        scaled = scaled.astype(x.dtype)
    if norm.weight:
        weight = params["weight"].astype(scaled.dtype)
        scaled = scaled * _along(1 + weight if norm.shifted else weight, scaled)
    if norm.bias:
        scaled = scaled + _along(params["bias"].astype(scaled.dtype), scaled)
    return scaled.astype(x.dtype)


def _along(vector: Array, x: Array) -> Array:
    """With as many axes as x, so that no rank is promoted."""
    return vector.reshape((1,) * (x.ndim - vector.ndim) + vector.shape)
