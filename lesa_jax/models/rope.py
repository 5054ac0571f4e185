"""Rotary position embedding in the Hugging Face convention: the two halves of a head are the rotated pairs."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lesa_jax.models.config import Llama3Scaling, RopeConfig


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Float[np.ndarray, " half"]:
    """Radians per token of each rotated pair, float32 as in transformers."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1.0) / np.power(np.float32(rope.theta), exponents)
    if rope.llama3 is not None:
        frequencies = _llama3(frequencies, rope.llama3)
    return (frequencies / np.float32(rope.factor)).astype(np.float32)


def _llama3(frequencies: np.ndarray, scaling: Llama3Scaling) -> np.ndarray:
    """Long wavelengths stretched by `factor`, short ones kept, a linear blend between (transformers, `llama3`)."""
    wavelengths = 2 * np.pi / frequencies
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = scaling.original_max_position_embeddings / wavelengths
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def rotation(
    positions: Int[Array, "*batch tokens"], rope: RopeConfig, head_dim: int
) -> tuple[Float[Array, "*batch tokens half"], Float[Array, "*batch tokens half"]]:
    """Cosine and sine of every position's angles."""
    angles = jnp.expand_dims(positions, -1).astype(jnp.float32)
    angles = angles * inverse_frequencies(rope, head_dim).reshape((1,) * positions.ndim + (-1,))
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x_BxTxHxD: Float[Array, "batch tokens heads head_dim"],
    cos_RxTxF: Float[Array, "rows tokens half"],
    sin_RxTxF: Float[Array, "rows tokens half"],
) -> Float[Array, "batch tokens heads head_dim"]:
    """Turns each pair (d, d + head_dim/2) by its position's angle, in float32; `rows` is the batch, or 1 for all."""
    cos, sin = cos_RxTxF[:, :, None, :], sin_RxTxF[:, :, None, :]
    first, second = jnp.split(x_BxTxHxD.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BxTxHxD.dtype)
