"""The frame that every closed-form initialiser stands in: one new layer after the other, from its gap's neighbours."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from lesa_jax.base.errors import InputError
from lesa_jax.planning.plan import fractions

# (lower neighbour [out, in], upper neighbour [out, in], t, key) -> new matrix [out, in], all float32. A neighbour is a
# tree of matrices where the weights are.
NewMatrix = Callable[[Any, Any, Array, PRNGKeyArray], Array]


def for_each_gap(
    new_matrix: NewMatrix,
    weights: PyTree[Float[np.ndarray | Array, "layers ..."]],
    gaps: Sequence[int],
    key: PRNGKeyArray,
) -> Float[Array, "new ..."]:
    """Calls `new_matrix` for one new layer after the other.

    Only the neighbours of new layers are read from `weights`, in its dtype, and cast to float32 two at a time.

    Args:
      new_matrix: a function of a module, not a closure: what is compiled for it is kept with it.
      weights: the matrices of one kind, all layers, any float dtype; or a tree, the first of it the kind to be made and
        the others what `new_matrix` sees beside it.
      gaps: for each new layer the layer below it; layers - 1 is above the last, which is then both neighbours.
      key: every new layer gets a key of its own derived from this one.

    Returns:
      float32, in the order of `gaps`.

    Raises:
      InputError: a gap that does not exist.
    """
    first = jax.tree.leaves(weights)[0]
    last = first.shape[0] - 1
    if not gaps:
        return jnp.zeros((0, *first.shape[1:]))
    if not all(0 <= gap <= last for gap in gaps):
        raise InputError(f"gaps {list(gaps)}: with {last + 1} layers, gaps go from 0 to {last}")
    pairs = np.array([(gap, min(gap + 1, last)) for gap in gaps])
    needed, rows = np.unique(pairs, return_inverse=True)
    t = np.array(fractions(gaps), np.float32)
    neighbours = rows.reshape(pairs.shape).astype(np.int32)
    layers = jax.tree.map(lambda stack: stack[needed], weights)
    return _map(new_matrix, layers, neighbours, t, jax.random.split(key, len(gaps)))


@functools.partial(jax.jit, static_argnums=0)
def _map(new_matrix: NewMatrix, layers, neighbours, t, keys):
    def layer(row):
        return jax.tree.map(lambda stack: stack[row].astype(jnp.float32), layers)

    def one(new):
        (below, above), t, key = new
        return new_matrix(layer(below), layer(above), t, key)

    return lax.map(one, (neighbours, t, keys))
