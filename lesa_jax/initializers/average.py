"""New layers between their neighbours: the average, and the frame that every closed-form initialiser stands in.

The average of adjacent layers is the published baseline of depth growth; n new layers in one gap divide it into n + 1
equal steps. An average of layers that point in different directions is shorter than they are: of two independent
matrices it has 1/sqrt(2) of their Frobenius norm. `average_scaled` undoes that.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from lesa_jax.initializers.gaps import for_each_gap
from lesa_jax.initializers.matrices import mean_norm, with_norm


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


def _average(below, above, t, key):
    del key
    return below + t * (above - below)  # exact where the neighbours agree, which (1-t) w + t w is not


def _average_scaled(below, above, t, key):
    return with_norm(_average(below, above, t, key), mean_norm(below, above, t))
