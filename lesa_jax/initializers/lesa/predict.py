"""New layers predicted from their neighbours: LESA (arXiv 2502.13794; github.com/yangyifei729/LESA).

For one weight kind: the L matrices W_l [out, in] side by side are U diag(S) [V_0 | ... | V_{L-1}]; a network G learns
to predict V_l from (V_{l-1}, V_{l+1}) (`predictor`); the matrix of a new layer between l and l+1 is
U diag(S) G([V_l, V_{l+1}]). Inputs are two layers apart in training and adjacent here, as published. Several new layers
in one gap are found by halving: the middle one first, then those between it and its neighbours.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from lesa_jax.base.errors import InputError
from lesa_jax.initializers.lesa.ahead import Ahead
from lesa_jax.initializers.lesa.predictor import (
    PUBLISHED,
    Fit,
    Params,
    PredictorSettings,
    fit,
    fit_programs,
    hidden_features,
    param_shapes,
    predict,
)
from lesa_jax.initializers.lesa.svd import LayerSVD, layer_svd, svd_programs, svd_shapes
from lesa_jax.initializers.matrices import dot
from lesa_jax.planning.methods import Lesa


@flax.struct.dataclass
class Prediction:
    """New matrices of one weight kind, float32, and how they came about.

    `singular_values` descend up to rounding, with 0 for directions cut as null; in raw space there are none, size 0.
    `agreement` is the factor, from 0 to 1, that brings the same predictor's predictions of layers that exist, each from
    those on both sides, nearest to these layers: with equal norms, their cosine.
    """

    weights: Float[Array, "new out in"]
    fit: Fit
    singular_values: Float[Array, " r"]
    agreement: Float[Array, ""]


class RawRows(NamedTuple):
    """The weights as they are, in place of a `LayerSVD`."""

    v: Float[Array, "*kinds layers out in"]
    kept: Bool[Array, "*kinds out"]


Basis = LayerSVD | RawRows


def decompose(w: Float[np.ndarray | Array, "layers out in"], space: str) -> Basis:
    """One kind's matrices taken apart into rows to predict, see `methods.Lesa`. A float32 JAX array is consumed.

    Raises:
      InputError: fewer than 3 layers.
    """
    if w.shape[0] < 3:
        raise InputError(f"lesa learns from layers between two others: needs at least 3 layers, got {w.shape[0]}")
    if space == "svd":
        return layer_svd(jax.device_put(w))
    return RawRows(jax.device_put(w).astype(jnp.float32), jnp.ones(w.shape[1], bool))


def learn(basis: Basis, key: PRNGKeyArray, lesa: Lesa, settings: PredictorSettings = PUBLISHED) -> Fit:
    """The predictor of one kind, trained on its interior layers."""
    return _learn_rows(basis.v, basis.kept, key, lesa, settings)


def decompose_together(kinds: Iterable[Float[np.ndarray | Array, "layers out in"]], count: int, space: str) -> Basis:
    """`decompose` for `count` kinds of one shape, as one basis with a leading axis of kinds.

    Each lies in the stack before the next is taken apart, so that only one of them is ever in memory twice.
    """
    stack = None
    for number, w in enumerate(kinds):
        basis = decompose(w, space)
        if stack is None:
            stack = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), basis)
        stack = _lay_into(stack, basis, number)
        del basis  # before the next is read
    assert stack is not None
    return stack


@functools.partial(jax.jit, donate_argnums=0)
def _lay_into(stack: Basis, basis: Basis, number: int | Int[Array, ""]) -> Basis:
    return jax.tree.map(lambda rows, new: rows.at[number].set(new), stack, basis)


def one_of(stack: Basis, number: int) -> Basis:
    """The basis of one kind."""
    return jax.tree.map(lambda x: x[number], stack)


def learn_together(
    stack: Basis, keys: Sequence[PRNGKeyArray], lesa: Lesa, settings: PredictorSettings = PUBLISHED
) -> list[Fit]:
    """`learn` for the kinds of `decompose_together` at once, in one vmapped loop: for accelerators.

    On a CPU one after the other is faster: two predictors' weights and AdamW moments would not fit into the cache.
    """
    learn_one = jax.vmap(lambda v, kept, key: _learn_rows(v, kept, key, lesa, settings))
    fits = learn_one(stack.v, stack.kept, jnp.stack(keys))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], fits) for i in range(len(keys))]


def _learn_rows(v, kept, key, lesa: Lesa, settings: PredictorSettings) -> Fit:
    if lesa.shuffled:  # the same SVD as of shuffled layers: U and S do not know the order
        v = v[jax.random.permutation(jax.random.fold_in(key, 1), v.shape[0])]
    return fit(v, kept, key, settings)


def predict_matrices(basis: Basis, fit: Fit, gaps: Sequence[int]) -> Prediction:
    """The new matrices, one for each gap in order; g stands for a new layer between layers g and g+1.

    Raises:
      InputError: a gap that does not exist.
    """
    layers = basis.v.shape[0]
    if not all(0 <= gap < layers - 1 for gap in gaps):
        raise InputError(f"gaps {list(gaps)}: with {layers} layers, gaps go from 0 to {layers - 2}")
    u, s = (basis.u, basis.s) if isinstance(basis, LayerSVD) else (None, None)
    if len(set(gaps)) == len(gaps):
        weights = _matrices(fit.params, u, s, basis.v, np.array(gaps, np.int32))
    else:
        rows = basis.v
        levels, order = halvings(gaps, layers)
        for lower, upper in levels:
            rows = _append_rows(fit.params, rows, np.array(lower, np.int32), np.array(upper, np.int32))
        weights = _compose(u, s, rows[np.array(order)])
    return Prediction(weights, fit, jnp.zeros(0) if s is None else s, _agreement(fit.params, s, basis.v))


def halvings(gaps: Sequence[int], layers: int) -> tuple[list[tuple[tuple[int, ...], tuple[int, ...]]], tuple[int, ...]]:
    """In which order the new layers of shared gaps are predicted, and from which.

    Args:
      gaps: ascending; a gap named n times gets n new layers. Of an even number the lower half is the larger one.
      layers: original layers, numbered 0 to layers - 1; new ones are numbered on from there as they are predicted.

    Returns:
      levels: for each round of predictions, the numbers of the lower and of the upper neighbours.
      order: for each entry of `gaps`, the number of its layer.
    """
    open_spans = [(gap, gap + 1, [i for i, g in enumerate(gaps) if g == gap]) for gap in dict.fromkeys(gaps)]
    order = [0] * len(gaps)
    levels = []
    number = layers
    while open_spans:
        levels.append((tuple(span[0] for span in open_spans), tuple(span[1] for span in open_spans)))
        halves = []
        for lower, upper, places in open_spans:
            middle = len(places) // 2
            order[places[middle]] = number
            halves += [(lower, number, places[:middle]), (number, upper, places[middle + 1 :])]
            number += 1
        open_spans = [span for span in halves if span[2]]
    return levels, tuple(order)


def prediction_programs(
    shape: tuple[int, ...],
    dtype: DTypeLike,
    gaps: Sequence[int],
    lesa: Lesa,
    settings: PredictorSettings = PUBLISHED,
) -> list[Ahead]:
    """What the functions above will run on a CPU for a kind [layers, out, in]: to be compiled by a thread beside them.

    Compilation is the work of one core, and the predictor's steps leave a second one partly idle.
    """
    w, programs = jax.ShapeDtypeStruct(shape, dtype), []
    u, s, v, kept = None, None, jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape[1:2], bool)
    if lesa.space == "svd":
        programs += svd_programs(w)
        u, s, v, kept = svd_shapes(w)
    programs += fit_programs(v, kept, settings)
    params = param_shapes(shape[2], settings)
    programs.append(Ahead("agreement", _agreement, (params, s, v)))
    if len(set(gaps)) == len(gaps):
        places = jax.ShapeDtypeStruct((len(gaps),), jnp.int32)
        programs.append(Ahead("new matrices", _matrices, (params, u, s, v, places)))
    return programs


@jax.jit
def _matrices(params: Params, u, s, v, gaps):
    """U diag(S) G([V_g, V_{g+1}]) for every gap; without u and s, G([V_g, V_{g+1}]).

    G = h W + b has rank hidden + 1 at most, so that (U diag(S) h) W + (U s) b costs a quarter of U diag(S) (h W + b).
    """

    def matrix(gap):
        h = hidden_features(params, jnp.concatenate([v[gap], v[gap + 1]], axis=1))
        shift = jnp.ones((v.shape[1], 1))
        if u is not None:
            h, shift = dot(u, s[:, None] * h), dot(u, s[:, None])
        return dot(h, params["third_kernel"]) + shift * params["third_bias"][None, :]

    return lax.map(matrix, gaps)


@jax.jit
def _agreement(params: Params, s, v):
    """Of diag(s) G([V_{l-1}, V_{l+1}]) with diag(s) V_l, l between two others; U changes no product of these."""

    def products(layer):
        p, y = predict(params, jnp.concatenate([v[layer - 1], v[layer + 1]], axis=1)), v[layer]
        if s is not None:
            p, y = s[:, None] * p, s[:, None] * y
        return jnp.sum(p * y), jnp.sum(jnp.square(p))

    agreeing, square = (jnp.sum(x) for x in lax.map(products, jnp.arange(1, v.shape[0] - 1)))
    return jnp.clip(agreeing / jnp.where(square > 0, square, 1), 0, 1)


@jax.jit
def _append_rows(params: Params, rows, lower, upper):
    """`rows` [layers, r, in] with G([rows[lower], rows[upper]]) after them."""
    new = lax.map(lambda pair: predict(params, jnp.concatenate([rows[pair[0]], rows[pair[1]]], axis=1)), (lower, upper))
    return jnp.concatenate([rows, new])


@jax.jit
def _compose(u, s, rows):
    """U diag(S) rows for every layer; without u and s, the rows."""
    return rows if u is None else lax.map(lambda v: dot(u * s[None, :], v), rows)
