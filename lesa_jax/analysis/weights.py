"""What a model's matrices are like from layer to layer; needs no text. One kind of weight is in memory at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.sparse.linalg import svds

from lesa_jax.analysis.continuity import SEED, Continuity, continuity, leading_coefficients
from lesa_jax.analysis.prediction import Prediction, prediction
from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import FLOATS
from lesa_jax.checkpoint.names import Stack
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.families.kinds import WeightKind, parts_of, read_matrices
from lesa_jax.families.roles import ROUTERS, is_linear, is_transposed
from lesa_jax.families.stacks import find_stacks

LEADING = 8  # singular values of each matrix
FEWEST = 3  # layers that a path can go through in more than one order


@dataclass(frozen=True)
class KindMeasures:
    """One kind of weight; of experts means over all of a layer.

    Attributes:
      kind: its name, such as `mlp.up_proj`.
      shape: [out, in].
      layers: those that have it; the following are in their order.
      norm: Frobenius norm.
      stable_rank: the square of that over the square of the largest singular value: how many directions of that size
        would make up the matrix.
      leading: the largest singular values, `LEADING` at most, in descending order.
      neighbour_error: the squared error of predicting a matrix as the best multiple of the sum of those below and
        above it, over that of predicting zero; None of the lowest and the highest.
      continuity: of V_l[0]; None of experts and of routers, whose rows they are, as experts do not correspond from
        layer to layer, and of fewer than `FEWEST` layers.
      prediction: by LESA's network, of layers that it was not taught; None of the same, and of three layers.
    """

    kind: str
    shape: tuple[int, int]
    layers: tuple[int, ...]
    norm: tuple[float, ...]
    stable_rank: tuple[float, ...]
    leading: tuple[tuple[float, ...], ...]
    neighbour_error: tuple[float | None, ...]
    continuity: Continuity | None
    prediction: Prediction | None


def measure_weights(checkpoint: Checkpoint, layers: int, advance: Callable[[str], None]) -> tuple[KindMeasures, ...]:
    """All kinds of matrices of a decoder's layers.

    Args:
      checkpoint: of the model; every matrix is read once.
      layers: how many it has; what lies under higher numbers is no layer.
      advance: is called with the name of each kind that is done.

    Raises:
      InputError: a matrix with a number that is not finite.
    """
    found = []
    for alike in kinds_of(checkpoint, layers):
        found.append(measure_kind(checkpoint, alike))
        advance(found[-1].kind)
    return tuple(found)


def kinds_of(checkpoint: Checkpoint, layers: int) -> Iterator[list[WeightKind]]:
    """The kinds of matrices, those of all experts together; what has one row or column is none."""
    (prefix,) = find_stacks(checkpoint.config, checkpoint.stacks)
    for stack in checkpoint.stacks:
        if stack.prefix == prefix and stack.starts[0] < layers and is_matrix(stack):
            count = min(stack.sizes[0], layers - stack.starts[0])
            stack = replace(stack, sizes=(count, *stack.sizes[1:]))
            transposed = is_transposed(checkpoint, stack)
            experts = [range(a, a + n) for a, n in zip(stack.starts[1:], stack.sizes[1:], strict=True)]
            for part in parts_of(checkpoint, stack) or (None,):
                yield [WeightKind(stack, expert, transposed, part) for expert in product(*experts)]


def is_matrix(stack: Stack) -> bool:
    shape = stack.spec.shape
    return is_linear(stack.template) and len(shape) in (2, 3) and min(shape[-2:]) > 1 and stack.spec.dtype in FLOATS


def measure_kind(checkpoint: Checkpoint, alike: Sequence[WeightKind]) -> KindMeasures:
    """One kind, or the same kind of all experts."""
    kind, pages, path, predicted = alike[0], list[Page](), None, None
    first = kind.stack.starts[0]
    by_experts = len(alike) * kind.pages > 1 or not ROUTERS.isdisjoint(kind.stack.template.split("."))
    for one in alike:
        for number in range(one.pages):
            w = read_matrices(checkpoint, one, number)
            pages.append(measure_page(one, w))
            if len(w) >= FEWEST and not by_experts:
                path, predicted = continuity(leading_coefficients(w)), prediction(w, first)
    norm, stable_rank, leading, error = (np.mean(values, axis=0) for values in zip(*pages, strict=True))
    return KindMeasures(
        kind=kind.name,
        shape=(kind.shape[1], kind.shape[2]),
        layers=tuple(range(first, first + len(norm))),
        norm=tuple(norm.tolist()),
        stable_rank=tuple(stable_rank.tolist()),
        leading=tuple(map(tuple, leading.tolist())),
        neighbour_error=tuple(None if np.isnan(value) else float(value) for value in error),
        continuity=path,
        prediction=predicted,
    )


class Page(NamedTuple):
    """Of one matrix in each layer, see `KindMeasures`; no error is NaN."""

    norm: Float[np.ndarray, " layers"]
    stable_rank: Float[np.ndarray, " layers"]
    leading: Float[np.ndarray, "layers values"]
    neighbour_error: Float[np.ndarray, " layers"]


def measure_page(kind: WeightKind, w: Float[np.ndarray, "layers out in"]) -> Page:
    norm = np.array([np.linalg.norm(matrix.astype(np.float32)) for matrix in w], np.float64)
    if not np.isfinite(norm).all():
        damaged = kind.tensors[int(np.flatnonzero(~np.isfinite(norm))[0])]
        raise InputError(f"{damaged}: holds NaN or infinite numbers; the model is damaged, take it again")
    leading = np.array([leading_values(matrix.astype(np.float32)) for matrix in w], np.float64)
    largest = leading[:, 0]
    stable_rank = norm**2 / np.where(largest > 0, largest, 1) ** 2
    return Page(norm, stable_rank, leading, neighbour_errors(w))


def leading_values(matrix: Float[np.ndarray, "out in"]) -> Float[np.ndarray, " values"]:
    """The largest singular values, in descending order; by Lanczos iterations where there are many."""
    if min(matrix.shape) <= 4 * LEADING or not matrix.any():
        return np.linalg.svd(matrix, compute_uv=False)[:LEADING]
    first = np.random.default_rng(SEED).standard_normal(min(matrix.shape))
    return np.sort(svds(matrix, LEADING, v0=first, return_singular_vectors=False))[::-1]


def neighbour_errors(w: Float[np.ndarray, "layers out in"]) -> Float[np.ndarray, " layers"]:
    """By how much a matrix misses the best multiple of the sum of its neighbours, squared, over its own square.

    That is one minus the square of their cosine; 1 where one of them is 0, NaN at both ends.
    """
    found = np.full(len(w), np.nan)
    for layer in range(1, len(w) - 1):
        found[layer] = float(_error(*(jnp.asarray(matrix) for matrix in w[layer - 1 : layer + 2])))
    return found


@jax.jit
def _error(
    below: Float[Array, "out in"], matrix: Float[Array, "out in"], above: Float[Array, "out in"]
) -> Float[Array, ""]:
    below, matrix, above = (x.astype(jnp.float32) for x in (below, matrix, above))
    both = below + above
    # Row by row: a float32 sum over all entries loses digits.
    agreeing, square, other = (jnp.sum(jnp.sum(x, axis=1)) for x in (matrix * both, matrix**2, both**2))
    return 1 - jnp.where(square * other > 0, agreeing**2 / jnp.where(square * other > 0, square * other, 1), 0)
