"""New layers of noise, as controls: what a method gains over these is not gained by its norm or its rank alone."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from lesa_jax.initializers.gaps import for_each_gap
from lesa_jax.initializers.matrices import dot, mean_norm, with_norm

# A matrix from the published LESA predictor is U diag(S) (h W + b): rank 256, the width of h, and one more for b.
LOW_RANK = 257


def random(
    weights: Float[np.ndarray | Array, "layers out in"], gaps: Sequence[int], key: PRNGKeyArray
) -> Float[Array, "new out in"]:
    """Independent Gaussian entries, scaled so that the Frobenius norm is exactly (1-t) |W_l| + t |W_{l+1}|.

    With one new layer in the gap that is the mean of the neighbours' norms.

    Args:
      weights: the matrices of one kind, all layers, any float dtype; only norms are taken from them.
      gaps: for each new layer the layer below it, ascending; layers - 1 is above the last.
      key: every new layer draws numbers of its own from it.

    Returns:
      float32, in the order of `gaps`.

    Raises:
      InputError: a gap that does not exist.
    """
    return for_each_gap(_random, weights, gaps, key)


def random_lowrank(
    weights: Float[np.ndarray | Array, "layers out in"], gaps: Sequence[int], key: PRNGKeyArray
) -> Float[Array, "new out in"]:
    """A product of Gaussian factors [out, r] and [r, in], r = min(257, out, in), scaled like `random`.

    257 is the largest rank that the published LESA predictor can give. Arguments, result and errors are those of
    `random`.
    """
    return for_each_gap(_random_lowrank, weights, gaps, key)


def _random(below, above, t, key):
    return with_norm(jax.random.normal(key, below.shape), mean_norm(below, above, t))


def _random_lowrank(below, above, t, key):
    rank = min(LOW_RANK, *below.shape)
    left, right = jax.random.split(key)
    product = dot(
        jax.random.normal(left, (below.shape[0], rank)),
        jax.random.normal(right, (rank, below.shape[1])),
    )
    return with_norm(product, mean_norm(below, above, t))
