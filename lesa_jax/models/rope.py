"""Rotary position embedding in the Hugging Face convention: the two halves of a head are the rotated pairs."""

import math
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lesa_jax.models.config import Llama3Scaling, RopeConfig


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Float[np.ndarray, " half"]:
    """Radians per token of each rotated pair, float32 and bit for bit those of transformers (on x86 with AVX2).

    The last bit matters: at position 100,000 it turns a pair by 0.008.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1.0) / _power(rope.theta, exponents)
    if rope.llama3 is not None:
        frequencies = _llama3(frequencies, rope.llama3)
    return (frequencies / np.float32(rope.factor)).astype(np.float32)


def _llama3(frequencies: np.ndarray, scaling: Llama3Scaling) -> np.ndarray:
    """Long wavelengths stretched by `factor`, short ones kept, a linear blend between; in transformers' order.

    Torch divides a number by a tensor as the number times the tensor's reciprocal.
    """
    wavelengths = 2 * np.pi * (1 / frequencies)
    context, low, high = scaling.original_max_position_embeddings, scaling.low_freq_factor, scaling.high_freq_factor
    kept = (context * (1 / wavelengths) - low) / (high - low)
    blend = (1 - kept) * frequencies / scaling.factor + kept * frequencies
    unstretched = np.where(wavelengths < context / high, frequencies, blend)
    return np.where(wavelengths > context / low, frequencies / scaling.factor, unstretched)


# Torch takes float32 powers by SLEEF's vectors (xpowf in github.com/shibatch/sleef), 16 at a time on x86 with AVX2, and
# the rest by the C library. SLEEF's are now and then a unit in the last place from the nearest float32. Its constants:
_TORCH_VECTOR = 16
_THIRD = 0.66666662693023681640625 + 3.69183861259614332084311e-09
_LOG = (0.240320354700088500976562, 0.285112679004669189453125, 0.400007992982864379882812)
_EXP = (
    0.00136324646882712841033936, 0.00836596917361021041870117, 0.0416710823774337768554688,
    0.166665524244308471679688, 0.499999850988388061523438,
)  # fmt: skip

Numbers: TypeAlias = np.ndarray | np.float64


def _power(base: float, exponents: np.ndarray) -> np.ndarray:
    """float32 base ** exponents as torch computes it."""
    powers = np.power(np.float32(base), exponents)
    vectors = len(exponents) - len(exponents) % _TORCH_VECTOR
    powers[:vectors] = _sleef_power(base, exponents[:vectors])
    return powers


def _sleef_power(base: float, exponents: np.ndarray) -> np.ndarray:
    """exp(y log(base)). SLEEF's pairs of float32 are float64 here; its polynomials' tails are float32 here too."""
    mantissa, binary = math.frexp(np.float32(base))
    if mantissa < 0.75:
        mantissa, binary = 2 * mantissa, binary - 1
    x = (mantissa - 1) / (mantissa + 1)
    logarithm = binary * np.log(2) + x * (2 + x**2 * (_THIRD + x**2 * _horner(_LOG, np.float64(x**2))))
    y = exponents * logarithm
    whole = np.rint(y / np.log(2))
    rest = y - whole * np.log(2)
    fraction = 1 + (rest + rest**2 * _horner(_EXP, rest))
    return np.ldexp(fraction.astype(np.float32), whole.astype(int))


def _horner(coefficients: tuple[float, ...], x: Numbers) -> Numbers:
    """A polynomial in float32, each step a fused multiply-add."""
    x, value = np.float64(np.float32(x)), np.float64(0)
    for coefficient in coefficients:
        value = np.float64(np.float32(value * x + np.float32(coefficient)))
    return value


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
