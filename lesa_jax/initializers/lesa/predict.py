"""New layers predicted from their neighbours: LESA (arXiv 2502.13794; github.com/yangyifei729/LESA).

For one weight kind: the L matrices W_l [out, in] side by side are U diag(S) [V_0 | ... | V_{L-1}]; a network G learns
to predict V_l from (V_{l-1}, V_{l+1}) (`predictor`); the matrix of a new layer between l and l+1 is
U diag(S) G([V_l, V_{l+1}]). Inputs are two layers apart in training and adjacent here, as published. Several new layers
in one gap are found by halving: the middle one first, then those between it and its neighbours.
"""

import functools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from lesa_jax.base.errors import InputError
from lesa_jax.initializers.lesa.ahead import Ahead
from lesa_jax.initializers.lesa.layers import Blocks, Layers, Room, each, store
from lesa_jax.initializers.lesa.predictor import (
    PUBLISHED,
    Fit,
    Params,
    PredictorSettings,
    fit,
    hidden_features,
    param_shapes,
    predict,
)
from lesa_jax.initializers.lesa.streaming import fit_streamed, streaming_programs
from lesa_jax.initializers.lesa.svd import LayerSVD, layer_svd, svd_programs, svd_shapes
from lesa_jax.initializers.matrices import dot
from lesa_jax.planning.methods import Lesa


class RawRows(NamedTuple):
    """The weights as they are, in place of a `LayerSVD`."""

    v: Any  # `Blocks` [*kinds layers out in]
    kept: Bool[Array, "*kinds out"]


Basis = LayerSVD | RawRows


def decompose(w: Layers, space: str, room: Room | None = None, rank: int | None = None) -> Basis:
    """One kind's matrices taken apart into rows to predict, see `methods.Lesa`.

    Args:
      w: the matrices, any float dtype.
      space: "svd" or "raw".
      room: on the host, where the rows go; by default they are on the device.
      rank: of "svd", as in `layer_svd`.

    Raises:
      InputError: fewer than 3 layers.
    """
    if w.shape[0] < 3:
        raise InputError(f"lesa learns from layers between two others: needs at least 3 layers, got {w.shape[0]}")
    if space == "svd":
        return layer_svd(w, room=room, rank=rank)
    layers, out, fan_in = w.shape
    v: Blocks = jnp.zeros(w.shape, jnp.float32) if room is None else room.rows((layers, out, fan_in))
    for number, w_l in enumerate(each(w)):
        v = store(v, number, w_l.astype(jnp.float32))
    return RawRows(v, jnp.ones(w.shape[1], bool))


def learn(
    basis: Basis,
    key: PRNGKeyArray,
    lesa: Lesa,
    settings: PredictorSettings = PUBLISHED,
    advance: Callable[[float], None] = lambda share: None,
) -> Fit:
    """The predictor of one kind, trained on its interior layers; `advance` is called with shares of the work."""
    if isinstance(basis.v, jax.Array):
        found = _learn_rows(basis.v, basis.kept, key, lesa, settings)
        advance(1.0)
        return found
    places = _shuffled(key, basis.v.shape[0]) if lesa.shuffled else None
    return fit_streamed(basis.v, basis.kept, key, settings, places, advance)


def decompose_together(kinds: Iterable[Layers], count: int, space: str, rank: int | None = None) -> Basis:
    """`decompose` for `count` kinds of one shape, as one basis with a leading axis of kinds.

    Each lies in the stack before the next is taken apart, so that only one of them is ever in memory twice.
    """
    stack = None
    for number, w in enumerate(kinds):
        basis = decompose(w, space, rank=rank)
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
    return fit(v[_shuffled(key, v.shape[0])] if lesa.shuffled else v, kept, key, settings)


def _shuffled(key, layers):
    """An order of the layers for the control; the SVD is that of shuffled ones, as U and S do not know the order."""
    return jax.random.permutation(jax.random.fold_in(key, 1), layers)


def new_matrices(basis: Basis, params: Params, gaps: Sequence[int]) -> Iterator[Float[Array, "out in"]]:
    """The new matrices, float32, one for each gap in order; g stands for a new layer between layers g and g+1.

    Each is made when it is asked for.

    Raises:
      InputError: a gap that does not exist.
    """
    layers = basis.v.shape[0]
    if not all(0 <= gap < layers - 1 for gap in gaps):
        raise InputError(f"gaps {list(gaps)}: with {layers} layers, gaps go from 0 to {layers - 2}")
    u, s = (basis.u, basis.s) if isinstance(basis, LayerSVD) else (None, None)
    return _new_matrices(u, s, basis.v, params, gaps)


def _new_matrices(u, s, v, params, gaps):
    for gap, count in Counter(gaps).items():
        rows = {0: jax.device_put(v[gap]), count + 1: jax.device_put(v[gap + 1])}
        halves = halvings(count)
        needed = {place for _, *pair in halves for place in pair}
        for place, lower, upper in halves:
            if place in needed:
                rows[place] = _between(params, rows[lower], rows[upper])
        for _, lower, upper in sorted(halves):
            yield _matrix(params, u, s, rows[lower], rows[upper])


def halvings(count: int) -> list[tuple[int, int, int]]:
    """In which order the new layers of one gap are predicted, and from which: places with those below and above them.

    Places go from 1 to `count`, between the old layers 0 and count + 1. The middle one comes first, then the middle
    of each half; of an even number the lower half is the larger one.
    """
    found, spans = [], [(0, count + 1)]
    for lower, upper in spans:  # grows on the way
        if (inside := upper - lower - 1) > 0:
            place = lower + 1 + inside // 2
            found.append((place, lower, upper))
            spans += [(lower, place), (place, upper)]
    return found


def agreement(basis: Basis, params: Params) -> Float[Array, ""]:
    """The factor, from 0 to 1, that brings a predictor's predictions of layers that exist, each from those on both
    sides, nearest to these layers: with equal norms, their cosine."""
    s = basis.s if isinstance(basis, LayerSVD) else None
    sums, three = jnp.zeros(2), deque[Array](maxlen=3)
    for block in each(basis.v):  # of what may be in a file each is read once
        three.append(block)
        if len(three) == 3:
            sums = jax.block_until_ready(sums + _products(params, s, *three))
    agreeing, square = sums
    return jnp.clip(agreeing / jnp.where(square > 0, square, 1), 0, 1)


def prediction_programs(
    shape: tuple[int, ...],
    dtype: DTypeLike,
    lesa: Lesa,
    settings: PredictorSettings = PUBLISHED,
) -> list[Ahead]:
    """What the functions above will run on a CPU for a kind [layers, out, in]: to be compiled by a thread beside them.

    Compilation is the work of one core, and the predictor's steps leave a second one partly idle.
    """
    w, programs = jax.ShapeDtypeStruct(shape, dtype), []
    u, s, v, kept = None, None, jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape[1:2], bool)
    if lesa.space == "svd":
        programs += [program for program in svd_programs(w, settings.rank) if program.name != "eigenvectors"]
        u, s, v, kept = svd_shapes(w, settings.rank)
    programs += streaming_programs(v, kept, settings)
    params, block = param_shapes(shape[2], settings), jax.ShapeDtypeStruct(v.shape[1:], jnp.float32)
    return [
        *programs,
        Ahead("agreement", _products, (params, s, block, block, block)),
        Ahead("new matrix", _matrix, (params, u, s, block, block)),
    ]


@jax.jit
def _matrix(params: Params, u, s, below, above):
    """U diag(S) G([below, above]); without u and s, G([below, above]).

    G = h W + b has rank hidden + 1 at most, so that (U diag(S) h) W + (U s) b costs a quarter of U diag(S) (h W + b).
    """
    h = hidden_features(params, jnp.concatenate([below, above], axis=1))
    shift = jnp.ones((below.shape[0], 1))
    if u is not None:
        h, shift = dot(u, s[:, None] * h), dot(u, s[:, None])
    return dot(h, params["third_kernel"]) + shift * params["third_bias"][None, :]


@jax.jit
def _between(params: Params, below, above):
    return predict(params, jnp.concatenate([below, above], axis=1))


@jax.jit
def _products(params: Params, s, below, layer, above):
    """Of p = diag(s) G([below, above]) with diag(s) layer, and with itself; U changes neither."""
    p = predict(params, jnp.concatenate([below, above], axis=1))
    if s is not None:
        p, layer = s[:, None] * p, s[:, None] * layer
    return jnp.stack([jnp.sum(p * layer), jnp.sum(jnp.square(p))])
