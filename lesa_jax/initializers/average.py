"""New layers between their neighbours: the average, and the frame that every closed-form initialiser stands in.

The average of adjacent layers is the published baseline of depth growth; n new layers in one gap divide it into n + 1
equal steps. An average of layers that point in different directions is shorter than they are: of two independent
matrices it has 1/sqrt(2) of their Frobenius norm. `average_scaled` undoes that.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from lesa_jax.errors import InputError

# (lower neighbour [out, in], upper neighbour [out, in], t, key) -> new matrix [out, in], all float32
NewMatrix = Callable[[Array, Array, Array, PRNGKeyArray], Array]


def average(
    weights: Float[np.ndarray | Array, "layers out in"], gaps: Sequence[int], key: PRNGKeyArray
) -> Float[Array, "new out in"]:
    """(1-t) W_l + t W_{l+1}, with t = 1/2 for one new layer in the gap (`fractions`).

    Above the last layer, and wherever the neighbours are equal, the new matrix is theirs bit for bit.

    Args:
      weights: the matrices of one kind, all layers, any float dtype.
      gaps: for each new layer the layer below it, ascending; layers - 1 is above the last.
      key: not used.

    Returns:
      float32, in the order of `gaps`.

    Raises:
      InputError: a gap that does not exist.
    """
    return for_each_gap(_average, weights, gaps, key)


def average_scaled(
    weights: Float[np.ndarray | Array, "layers out in"], gaps: Sequence[int], key: PRNGKeyArray
) -> Float[Array, "new out in"]:
    """a ((1-t) W_l + t W_{l+1}), a > 0 such that its Frobenius norm is (1-t) |W_l| + t |W_{l+1}|.

    Neighbours that cancel have no direction to scale and give 0. Arguments, result and errors are those of `average`.
    """
    return for_each_gap(_average_scaled, weights, gaps, key)


def fractions(gaps: Sequence[int]) -> tuple[float, ...]:
    """Where each new layer lies between its neighbours: (i+1)/(n+1) for the i-th of the n in one gap, in (0, 1)."""
    gaps = list(gaps)
    return tuple((gaps[:i].count(gap) + 1) / (gaps.count(gap) + 1) for i, gap in enumerate(gaps))


def for_each_gap(
    new_matrix: NewMatrix,
    weights: Float[np.ndarray | Array, "layers out in"],
    gaps: Sequence[int],
    key: PRNGKeyArray,
) -> Float[Array, "new out in"]:
    """Calls `new_matrix` for one new layer after the other.

    Only the neighbours of new layers are read from `weights`, in its dtype, and cast to float32 two at a time.

    Args:
      new_matrix: a function of a module, not a closure: what is compiled for it is kept with it.
      weights: the matrices of one kind, all layers, any float dtype.
      gaps: for each new layer the layer below it; layers - 1 is above the last, which is then both neighbours.
      key: every new layer gets a key of its own derived from this one.

    Returns:
      float32, in the order of `gaps`.

    Raises:
      InputError: a gap that does not exist.
    """
    last = weights.shape[0] - 1
    if not gaps:
        return jnp.zeros((0, *weights.shape[1:]))
    if not all(0 <= gap <= last for gap in gaps):
        raise InputError(f"gaps {list(gaps)}: with {last + 1} layers, gaps go from 0 to {last}")
    pairs = np.array([(gap, min(gap + 1, last)) for gap in gaps])
    needed, rows = np.unique(pairs, return_inverse=True)
    t = np.array(fractions(gaps), np.float32)
    neighbours = rows.reshape(pairs.shape).astype(np.int32)
    return _map(new_matrix, weights[needed], neighbours, t, jax.random.split(key, len(gaps)))


def mean_norm(below: Float[Array, "out in"], above: Float[Array, "out in"], t: Float[Array, ""]) -> Float[Array, ""]:
    """Frobenius norms of the neighbours, averaged with weights 1-t and t."""
    return (1 - t) * _norm(below) + t * _norm(above)


def with_norm(matrix: Float[Array, "out in"], norm: Float[Array, ""]) -> Float[Array, "out in"]:
    """The matrix times the positive number that gives it this Frobenius norm; a zero matrix stays zero."""
    present = _norm(matrix)
    return matrix * jnp.where(present > 0, norm / jnp.where(present > 0, present, 1), 0)


@functools.partial(jax.jit, static_argnums=0)
def _map(new_matrix: NewMatrix, layers, neighbours, t, keys):
    def one(new):
        (below, above), t, key = new
        return new_matrix(layers[below].astype(jnp.float32), layers[above].astype(jnp.float32), t, key)

    return lax.map(one, (neighbours, t, keys))


def _average(below, above, t, key):
    del key
    return below + t * (above - below)  # exact where the neighbours agree, which (1-t) w + t w is not


def _average_scaled(below, above, t, key):
    return with_norm(_average(below, above, t, key), mean_norm(below, above, t))


def _norm(matrix):
    return jnp.linalg.norm(jnp.linalg.norm(matrix, axis=1))  # row by row: a float32 sum over all entries loses digits
