"""Does what a kind of weight does change step by step from layer to layer? LESA's picture, with a number.

LESA (arXiv 2502.13794) predicts a layer from those on both sides, in the space of the singular directions that all
layers of a kind share. Its evidence is a t-SNE of each layer's coefficients V_l[0] of the largest direction, in which
layers seem to line up by depth. Here the shortest path through these points, in their full space, is compared with
depth by Spearman's rank correlation, without sign, as a path has two ends. The control shuffles the layers' numbers.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse.linalg import LinearOperator, eigsh

from lesa_jax.initializers.matrices import dot

SHUFFLES = 10_000
SEED = 0  # of whatever is random here
KICKS = 300  # attempts to leave a path that no reversed part makes shorter

Points = Float[np.ndarray, "points features"]


@dataclass(frozen=True)
class Continuity:
    """Of one kind of weight.

    Attributes:
      correlation: of the layers' order along the shortest path with their depth, 0 to 1.
      p: share of shuffled layers that correlate as much.
      null_mean, null_95: the correlation of shuffled layers, its mean and what 95 % of them stay below.
      adjacent_cosine, all_cosine: mean cosine of neighbouring layers' points, and of all pairs.
    """

    correlation: float
    p: float
    null_mean: float
    null_95: float
    adjacent_cosine: float
    all_cosine: float


def continuity(points: Points) -> Continuity:
    """How far points, one for each layer, lie along a line in the order of their depth; at least 3 of them."""
    null = null_correlations(len(points), SHUFFLES, SEED)
    correlation = abs(spearman(shortest_path(distances(points))))
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    unit = points / np.where(lengths > 0, lengths, 1)  # a silent layer has no direction
    cosines = unit @ unit.T
    return Continuity(
        correlation,
        p_value(correlation, null),
        float(null.mean()),
        float(np.quantile(null, 0.95)),
        float(np.mean(np.diagonal(cosines, 1))),
        float(np.mean(cosines[np.triu_indices(len(points), 1)])),
    )


def leading_coefficients(w: Float[np.ndarray | Array, "layers out in"]) -> Points:
    """V_l[0] of [W_0 | W_1 | ..] = U S [V_0 | V_1 | ..] for each layer, any dtype, at least 2 rows.

    By Lanczos iterations, which multiply by the layers, instead of the whole decomposition: minutes where the SVD of a
    large model's feed-forward matrices takes hours.
    """
    stack, out = jnp.asarray(w), w.shape[1]
    first = np.random.default_rng(SEED).standard_normal(out)
    tolerance: Any = 1e-6  # products are float32
    energy, u = eigsh(Gram(stack), k=1, v0=first, tol=tolerance)
    return np.asarray(_coefficients(stack, u[:, 0]), np.float64) / np.sqrt(energy[0])


class Gram(LinearOperator):
    """sum_l W_l W_l^T, known by its products with vectors."""

    def __init__(self, w: Float[Array, "layers out in"]):
        super().__init__(np.dtype(np.float64), (w.shape[1], w.shape[1]))
        self.w = w

    def _matvec(self, x: Float[np.ndarray, " out"]) -> Float[np.ndarray, " out"]:
        return np.asarray(gram_times(self.w, jnp.asarray(x, jnp.float32)), np.float64)


@jax.jit
def gram_times(w: Float[Array, "layers out in"], u: Float[Array, "out *columns"]) -> Float[Array, "out *columns"]:
    """sum_l W_l W_l^T u in float32, a layer of any dtype at a time."""

    def add(total: Array, w_l: Array) -> tuple[Array, None]:
        w_l = w_l.astype(jnp.float32)
        return total + dot(w_l, dot(w_l.T, u)), None

    return jax.lax.scan(add, jnp.zeros_like(u), w)[0]


@jax.jit
def _coefficients(w: Float[Array, "layers out in"], u: Float[Array, " out"]) -> Float[Array, "layers in"]:
    return jax.lax.map(lambda w_l: dot(w_l.astype(jnp.float32).T, u.astype(jnp.float32)), w)


def spearman(order: Int[np.ndarray, " points"]) -> float:
    """Rank correlation of the points' numbers with their places in `order`, a permutation: no ties."""
    n = len(order)
    return 1 - 6 * float(np.sum((np.asarray(order, float) - np.arange(n)) ** 2)) / (n * (n * n - 1))


@functools.cache
def null_correlations(points: int, shuffles: int, seed: int) -> Float[np.ndarray, " shuffles"]:
    """|Spearman| of random orders: shuffling the layers' numbers leaves the path as it is."""
    rng = np.random.default_rng(seed)
    return np.abs([spearman(rng.permutation(points)) for _ in range(shuffles)])


def p_value(correlation: float, null: Float[np.ndarray, " shuffles"]) -> float:
    """The share of the null that is at least as large, the value itself counted among it."""
    return float((np.sum(null >= correlation - 1e-12) + 1) / (len(null) + 1))


def distances(points: Points) -> Float[np.ndarray, "points points"]:
    return np.sqrt(np.maximum(((points[:, None] - points[None]) ** 2).sum(-1), 0))


def shortest_path(distance: Float[np.ndarray, "points points"]) -> Int[np.ndarray, " points"]:
    """The order of a path that visits every point once, between any two ends: the shortest one that is found.

    A tour through the points and one that is at no distance from any is made shorter by reversing parts of it (2-opt),
    then cut and put together in another way, and so on (iterated local search). Exact search ends at some 18 points;
    where it was used, on 16 layers, the path is the same (14 kinds of weight, experiments/README.md).
    """
    n = len(distance)
    around = np.zeros((n + 1, n + 1))
    around[:n, :n] = distance
    rng = np.random.default_rng(SEED)
    best = reverse_parts(np.arange(n + 1), around)
    for _ in range(KICKS if n > 3 else 0):
        a, b, c = np.sort(rng.choice(np.arange(1, n + 1), 3, replace=False))
        kicked = np.concatenate([best[:a], best[b:c], best[a:b], best[c:]])
        found = reverse_parts(kicked, around)
        if length(found, around) < length(best, around):
            best = found
    end = int(np.flatnonzero(best == n)[0])
    return np.concatenate([best[end + 1 :], best[:end]])


def reverse_parts(tour: Int[np.ndarray, " n"], distance: Float[np.ndarray, "n n"]) -> Int[np.ndarray, " n"]:
    """The tour with parts reversed, the one that saves most first, until none saves anything."""
    while True:
        here, following = tour, np.roll(tour, -1)
        step = distance[here, following]
        saved = step[:, None] + step[None] - distance[np.ix_(here, here)] - distance[np.ix_(following, following)]
        np.fill_diagonal(saved, 0)  # one step is no two
        i, j = sorted(divmod(int(saved.argmax()), len(tour)))
        if saved[i, j] <= 1e-12 * distance.max():
            return tour
        tour = np.concatenate([tour[: i + 1], tour[i + 1 : j + 1][::-1], tour[j + 1 :]])


def length(tour: Int[np.ndarray, " n"], distance: Float[np.ndarray, "n n"]) -> float:
    return float(distance[tour, np.roll(tour, -1)].sum())
