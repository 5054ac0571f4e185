"""Most of what matrices side by side reach, without a Gram matrix of theirs: the randomised range finder.

N. Halko, P.-G. Martinsson, J. A. Tropp, "Finding structure with randomness", SIAM Review 53 (2011), algorithm 4.4. Its
products take rank / rows of what a Gram matrix of all rows takes, and no eigenvectors of that size are needed.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lesa_jax.initializers.lesa.ahead import Ahead
from lesa_jax.initializers.lesa.layers import Layers, each
from lesa_jax.initializers.matrices import dot

ITERATIONS = 2  # over the matrices, which turn the directions found towards the large singular values


def find_range(
    w: Layers, size: int, unit: Float[Array, ""] | float = 1.0, dtype: DTypeLike = jnp.float32
) -> tuple[Float[Array, "size out"], Float[Array, ""]]:
    """Orthonormal rows whose span holds nearly as much of `unit` times the layers side by side as any `size` directions
    can, and the sum of the squares of all their entries. Reads the layers once, and once an iteration.

    Its random numbers are always the same, so that one original has one basis whatever grows from it.
    """
    key, energy = jax.random.key(0), jnp.zeros((), dtype)
    sketch = jnp.zeros((w.shape[1], size), dtype)
    for layer, w_l in enumerate(each(w)):
        sketch, energy = jax.block_until_ready(
            _add_sketch(sketch, energy, w_l, unit, jax.random.fold_in(key, layer))  # no layer is read before it is due
        )
    for _ in range(ITERATIONS):
        q = _orthonormal(sketch)
        sketch = jnp.zeros_like(q)
        for w_l in each(w):
            sketch = jax.block_until_ready(_add_iteration(sketch, q, w_l, unit))
        del q
    return _orthonormal(sketch).T, energy


class Projected:
    """The layers in an orthonormal basis: `Layers` of as many rows as it has."""

    def __init__(self, basis: Float[Array, "size out"], w: Layers, unit: Float[Array, ""] | float):
        self.basis, self.w, self.unit = basis, w, unit
        self.shape, self.dtype = (w.shape[0], len(basis), w.shape[2]), basis.dtype

    def __getitem__(self, layer: int) -> Array:
        return _project(self.basis, self.w[layer], self.unit)


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _add_sketch(sketch, energy, w_l, unit, key):
    w_l = unit * w_l.astype(sketch.dtype)
    square = jnp.sum(jnp.sum(jnp.square(w_l), axis=1))  # row by row: a float32 sum over all entries loses digits
    return sketch + dot(w_l, jax.random.normal(key, (w_l.shape[1], sketch.shape[1]), sketch.dtype)), energy + square


@functools.partial(jax.jit, donate_argnums=0)
def _add_iteration(sketch, q, w_l, unit):
    w_l = unit * w_l.astype(sketch.dtype)
    return sketch + dot(w_l, dot(w_l.T, q))


@functools.partial(jax.jit, donate_argnums=0)
def _orthonormal(sketch):
    return jnp.linalg.qr(sketch)[0]


@jax.jit
def _project(basis, w_l, unit):
    return dot(basis, unit * w_l.astype(basis.dtype))


def range_programs(w_l: jax.ShapeDtypeStruct, size: int) -> list[Ahead]:
    """What the functions above run for a layer of this shape [out, in]."""
    number = jax.ShapeDtypeStruct((), jnp.float32)
    sketch = jax.ShapeDtypeStruct((w_l.shape[0], size), jnp.float32)
    basis = jax.ShapeDtypeStruct((size, w_l.shape[0]), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return [
        Ahead("sketch", _add_sketch, (sketch, number, w_l, number, key)),
        Ahead("orthonormal basis", _orthonormal, (sketch,)),
        Ahead("iteration", _add_iteration, (sketch, sketch, w_l, number)),
        Ahead("layers in the basis", _project, (basis, w_l, number)),
    ]
