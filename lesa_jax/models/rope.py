"""Rotary position embedding in the Hugging Face convention: the two halves of a head, or neighbours, are pairs."""

import functools
import math
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lesa_jax.families.model import Dynamic, Linear, Llama3, LongRope, Rope, Yarn


def inverse_frequencies(rope: Rope) -> Float[np.ndarray, " half"]:
    """Radians per token of each rotated pair, float32 and bit for bit those of transformers (on x86 with AVX2).

    The last bit matters: at position 100,000 it turns a pair by 0.008. Of scalings that depend on the length of a
    sequence they are those of short ones.
    """
    periods = _power(rope.theta, _exponents(rope))
    match rope.scaling:
        case Linear(factor):
            return (np.float32(1.0) / periods / np.float32(factor)).astype(np.float32)
        case Llama3():
            return _llama3(np.float32(1.0) / periods, rope.scaling).astype(np.float32)
        case Yarn():
            return _yarn(periods, rope).astype(np.float32)
        case LongRope():
            return np.float32(1.0) / (np.array(rope.scaling.short, np.float32) * periods)
    return np.float32(1.0) / periods


def _exponents(rope: Rope) -> Float[np.ndarray, " half"]:
    return np.arange(0, rope.width, 2, dtype=np.float32) / np.float32(rope.width)


def frequencies_for(rope: Rope, tokens: Int[Array, ""]) -> Float[Array, " half"]:
    """Radians per token in sequences of so many tokens."""
    usual = jnp.asarray(inverse_frequencies(rope))
    match rope.scaling:
        case LongRope(_, long, positions):
            periods = _power(rope.theta, _exponents(rope))
            return jnp.where(tokens > positions, np.float32(1.0) / (np.array(long, np.float32) * periods), usual)
        case Dynamic(factor, positions):
            longer = jnp.maximum(tokens, positions).astype(jnp.float32) / positions
            growth = (factor * longer - (factor - 1)) ** (rope.width / (rope.width - 2))
            return jnp.where(tokens > positions, 1 / (rope.theta * growth) ** _exponents(rope), usual)
    return usual


def _yarn(periods: np.ndarray, rope: Rope) -> np.ndarray:
    """Short wavelengths kept, long ones stretched by `factor`, a linear blend between."""
    scaling = rope.scaling
    assert isinstance(scaling, Yarn)

    def pair(turns: float) -> float:
        """Which pair turns so often within the positions."""
        return rope.width * math.log(scaling.positions / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair(scaling.fast), pair(scaling.slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.width - 1)
    high = high + 0.001 if low == high else high
    ramp = np.clip((np.arange(rope.width // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
    kept = 1 - ramp
    return 1 / (np.float32(scaling.factor) * periods) * (1 - kept) + 1 / periods * kept


def _llama3(frequencies: np.ndarray, scaling: Llama3) -> np.ndarray:
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
    positions: Int[Array, "*rows tokens"], rope: Rope, lengths: Int[Array, "*rows"] | None = None
) -> tuple[Float[Array, "*rows tokens half"], Float[Array, "*rows tokens half"]]:
    """Cosine and sine of every position's angles, times what the scaling asks for.

    `lengths` are those of the texts, in tokens; by default all reach to the furthest position.
    """
    if lengths is None or not depends_on_length(rope):
        frequencies = frequencies_for(rope, jnp.max(positions) + 1).reshape((1,) * positions.ndim + (-1,))
    else:
        of_length = jnp.vectorize(functools.partial(frequencies_for, rope), signature="()->(half)")
        frequencies = of_length(lengths)[..., None, :]
    angles = positions[..., None].astype(jnp.float32) * frequencies
    magnitude = rope.scaling.magnitude if isinstance(rope.scaling, (Yarn, LongRope)) else 1.0
    return magnitude * jnp.cos(angles), magnitude * jnp.sin(angles)


def depends_on_length(rope: Rope | None) -> bool:
    """Whether a position is rotated otherwise in a longer text."""
    return rope is not None and isinstance(rope.scaling, (Dynamic, LongRope))


def rotate(
    x_BxTxHxD: Float[Array, "batch tokens heads head_dim"],
    cos_RxTxF: Float[Array, "rows tokens half"],
    sin_RxTxF: Float[Array, "rows tokens half"],
    interleaved: bool = False,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Turns each pair of a head's first 2 * half numbers by its position's angle, in float32.

    `rows` is the batch, or 1 for all. A pair is (d, d + half), or (2d, 2d + 1) if `interleaved`.
    """
    half = cos_RxTxF.shape[-1]
    cos, sin = cos_RxTxF[:, :, None, :], sin_RxTxF[:, :, None, :]
    turned, rest = jnp.split(x_BxTxHxD.astype(jnp.float32), [2 * half], axis=-1)
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
    else:
        first, second = jnp.split(turned, 2, axis=-1)
    pair = first * cos - second * sin, second * cos + first * sin
    turned = jnp.stack(pair, axis=-1).reshape(turned.shape) if interleaved else jnp.concatenate(pair, axis=-1)
    return jnp.concatenate([turned, rest], axis=-1).astype(x_BxTxHxD.dtype)
