"""New layers averaged after neuron alignment: OpT-DeUS (arXiv 2508.08011).

Rows are neurons, and two layers may hold alike neurons in different places. Entropic optimal transport between the rows
of W_l and those of W_{l+1}, with uniform marginals 1/n and the Euclidean distance of rows (not normalised) as cost,
gives a plan T [n, n]; T^T W_l is W_l with its rows moved to where W_{l+1} has their like, and is averaged with W_{l+1}.

Where rows move, columns that read them move along. The feed-forward network reads what attention wrote, so the plan T_o
of attention's output projection moves the columns of gate and up first, W_l T_o, and their own plans are found after
that. The norm before it reads what attention wrote and the stream that it was added to, which does not move, so half of
its weight does: (w_l T_o + w_l) / 2. A bias moves with the rows of its weight; the public code has none. Queries,
keys and values read the stream as it comes into the layer: their columns stay. So do those of the two projections into
the stream, which read products that no one plan moves, and which the method silences in any case.

T has total mass 1, so that T^T W_l is 1/n of an average of rows. Taken as it stands that all but removes W_l: the
published layer is W_{l+1} / 2 and little else, with (w_l / 2 + w_{l+1}) / 2 in the norm between its halves. Divided by
the marginals, n T^T W_l holds convex combinations of the rows of W_l (barycentric projection), and W_l n T_o those of
its columns. Both are here. A convex combination of many rows is short all the same: between adjacent layers of a
trained model with 192 channels, n T^T W_l has 0.12 to 0.38 of the Frobenius norm of W_l, and W_l n T_o 0.11 to 0.15:
the distances of attention's rows differ by about the regularisation, so that T_o spreads each of them over many. Both
together, in gate and up, leave 0.01 to 0.05. As published, alignment keeps little of the lower layer there.

The regularisation 0.06 is an absolute distance, as published: rows that are much closer than that to one another are
blurred into their mean, also in a layer matched with itself (above the last layer). Gate and up are aligned each by its
own rows, as published, though these meet in a product; so are queries and keys.

Memory. A plan is n x n float32: 0.48 GB for the 11008 rows of a 7B feed-forward layer. One gap is at work at a time,
with up to three arrays of that size: the plan and its temporary copies. T_o is found anew for each kind that it moves,
so that no more than two kinds are in memory.
"""

import functools
from collections.abc import Sequence
from math import log
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from lesa_jax.initializers.gaps import for_each_gap
from lesa_jax.initializers.matrices import dot

REGULARISATION = 0.06  # as published, in units of the weights


class Neurons(NamedTuple):
    """What is to be moved, of all layers or of one, and matrices whose rows are its neurons.

    Attributes:
      weights: a matrix, a bias (then there are `rows`), or a norm weight (then there are `columns` and no `rows`).
      rows: the weight of a bias.
      columns: what attention wrote and the columns of the weight read.
    """

    weights: Float[np.ndarray | Array, "..."]
    rows: Float[np.ndarray | Array, "..."] | None = None
    columns: Float[np.ndarray | Array, "..."] | None = None


def transport(
    weights: Float[np.ndarray | Array, "layers ..."],
    gaps: Sequence[int],
    key: PRNGKeyArray,
    rows: Float[np.ndarray | Array, "layers out in"] | None = None,
    columns: Float[np.ndarray | Array, "layers in _"] | None = None,
) -> Float[Array, "new ..."]:
    """(1-t) n T^T W_l + t W_{l+1}, t = 1/2 for one new layer: each row of n T^T W_l is a mean of rows of W_l.

    Args:
      weights: the matrices [out, in] or vectors of one kind, all layers, any float dtype.
      gaps: for each new layer the layer below it, ascending; layers - 1 is above the last, which is then aligned with
        itself.
      key: not used.
      rows: see `Neurons`.
      columns: see `Neurons`; with them, W_l stands for W_l n T_o.

    Returns:
      float32, in the order of `gaps`.

    Raises:
      InputError: a gap that does not exist.
    """
    return for_each_gap(_transport, Neurons(weights, rows, columns), gaps, key)


def transport_published(
    weights: Float[np.ndarray | Array, "layers ..."],
    gaps: Sequence[int],
    key: PRNGKeyArray,
    rows: Float[np.ndarray | Array, "layers out in"] | None = None,
    columns: Float[np.ndarray | Array, "layers in _"] | None = None,
) -> Float[Array, "new ..."]:
    """(1-t) T^T W_l + t W_{l+1}, t = 1/2 for one new layer: about t W_{l+1}, for T is as small as 1/n.

    Arguments, result and errors are those of `transport`, with T_o for n T_o.
    """
    return for_each_gap(_transport_published, Neurons(weights, rows, columns), gaps, key)


@functools.partial(jax.jit, static_argnames=("reg", "tolerance", "max_iterations"))
def sinkhorn(
    cost: Float[Array, "n n"], reg: float, tolerance: float = 1e-5, max_iterations: int = 1000
) -> Float[Array, "n n"]:
    """The plan T that minimises <T, cost> - reg * entropy(T) among those whose rows and columns each sum to 1/n.

    Sinkhorn's scaling of exp(-cost / reg), on logarithms, so that no cost is too large for the exponential. The plan
    itself is scaled, not two vectors: these grow like cost / reg, and the marginals would be off by their rounding.

    Args:
      cost: of moving row mass i to column j, in float32 or float64.
      reg: weight of the entropy, in units of the cost.
      tolerance: largest relative error of a row's marginal at which to stop. Columns are normalised last and are right
        up to rounding whenever it stops.
      max_iterations: when to stop all the same, at least 1. Layers of a trained model of width 192 took less than
        100 at the published reg; the smaller reg is against the cost, the more it takes.
    """
    log_mass = -log(cost.shape[0])

    def unfinished(state):
        _, _, error, iteration = state
        return (error > tolerance) & (iteration < max_iterations)

    def scale(state):
        log_plan, rows, _, iteration = state
        # Added last: beside logarithms of 1e8 and more the mass would be rounded away.
        log_plan = log_plan - rows + log_mass
        log_plan = log_plan - logsumexp(log_plan, axis=0, keepdims=True) + log_mass
        rows = logsumexp(log_plan, axis=1, keepdims=True)
        return log_plan, rows, jnp.max(jnp.abs(jnp.expm1(rows - log_mass))), iteration + 1

    # No sum touches the quotient outside the loop, where it would be fused with it and not round alike everywhere.
    start = cost / -reg, jnp.full_like(cost[:, :1], log_mass), jnp.asarray(jnp.inf, cost.dtype), 0
    return jnp.exp(lax.while_loop(unfinished, scale, start)[0])


def row_distances(a: Float[Array, "n in"], b: Float[Array, "m in"]) -> Float[Array, "n m"]:
    """Euclidean distances of all rows of a from all rows of b, from one matrix product.

    |a|^2 + |b|^2 - 2ab rounds where rows all but agree: float32 distances below 1e-3 of the rows' norms are noise.
    """
    a_squares, b_squares = (jnp.sum(jnp.square(rows), axis=1) for rows in (a, b))
    return jnp.sqrt(jnp.maximum(a_squares[:, None] + b_squares[None, :] - 2 * dot(a, b.T), 0))


def _transport(below, above, t, key):
    del key
    return (1 - t) * _moved(below, above, _divided_plan) + t * above.weights


def _transport_published(below, above, t, key):
    del key
    return (1 - t) * _moved(below, above, _plan) + t * above.weights


def _moved(below, above, plan):
    """What is below, its neurons where the layer above has their like."""
    bias = below.rows is not None
    matrix, like = (below.rows, above.rows) if bias else (below.weights, above.weights)
    if below.columns is not None:
        read = plan(below.columns, above.columns)
        if matrix.ndim == 1:
            return (matrix + dot(matrix, read)) / 2  # the stream itself does not move
        matrix = dot(matrix, read)
    return dot(plan(matrix, like).T, below.weights if bias else matrix)


def _plan(below, above):
    """T: from row i of `below` to row j of `above`."""
    return sinkhorn(row_distances(below, above), REGULARISATION)


def _divided_plan(below, above):
    """n T: each column is a convex combination."""
    return below.shape[0] * _plan(below, above)
