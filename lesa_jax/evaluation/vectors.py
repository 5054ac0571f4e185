"""Angles between directions of the residual stream, in float32, exact where they are small."""

import jax.numpy as jnp
from jaxtyping import Array, Float

Stream = Float[Array, "rows tokens hidden"]
PerToken = Float[Array, "rows tokens"]


def lengths(x: Stream) -> PerToken:
    return jnp.linalg.norm(x, axis=-1)


def unit(x: Stream) -> Stream:
    """Of length 1; a vector of zeros stays."""
    size = lengths(x)[..., None]
    return x / jnp.where(size > 0, size, 1)


def angles(a: Stream, b: Stream) -> PerToken:
    """Radians between a and b, for each token; 0 where they are one vector, a right angle where one of them is 0.

    By half the difference of the unit vectors over half their sum (Kahan): the arc cosine of a rounded cosine knows
    nothing below 3e-4.
    """
    u, v = unit(a), unit(b)
    return 2 * jnp.arctan2(lengths(u - v), lengths(u + v))


def influences(a: Stream, b: Stream) -> PerToken:
    """One minus the cosine of a and b (Block Influence, arXiv 2403.03853), as exact as the angle that it comes from.

    0 where they are one vector, 1 where one of them is 0, 2 where they are opposite.
    """
    return 2 * jnp.sin(angles(a, b) / 2) ** 2


def cosines(a: Stream, b: Stream) -> PerToken:
    """0 where one of them is 0."""
    return jnp.clip(jnp.sum(unit(a) * unit(b), axis=-1), -1, 1)


def shares(part: Stream, whole: Stream) -> PerToken:
    """The length of one over that of the other, which counts for no less than 1e-6 (as Csordas et al. have it)."""
    return lengths(part) / jnp.maximum(lengths(whole), 1e-6)
