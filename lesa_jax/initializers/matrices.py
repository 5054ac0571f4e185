"""Matrix products and norms in full float32 precision."""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Full float32 products on accelerators, whose default is TF32 or bfloat16; a CPU has no other.
dot = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def mean_norm(below: Float[Array, "out in"], above: Float[Array, "out in"], t: Float[Array, ""]) -> Float[Array, ""]:
    """Frobenius norms of the neighbours, averaged with weights 1-t and t."""
    return (1 - t) * _norm(below) + t * _norm(above)


def with_norm(matrix: Float[Array, "out in"], norm: Float[Array, ""]) -> Float[Array, "out in"]:
    """The matrix times the positive number that gives it this Frobenius norm; a zero matrix stays zero."""
    present = _norm(matrix)
    return matrix * jnp.where(present > 0, norm / jnp.where(present > 0, present, 1), 0)


def _norm(matrix):
    return jnp.linalg.norm(jnp.linalg.norm(matrix, axis=1))  # row by row: a float32 sum over all entries loses digits
