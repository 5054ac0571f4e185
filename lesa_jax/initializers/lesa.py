"""New layers predicted from their neighbours: LESA (arXiv 2502.13794; github.com/yangyifei729/LESA).

For one weight kind: the L matrices W_l [out, in] side by side are U diag(S) [V_0 | ... | V_{L-1}]; a network G learns
to predict V_l from (V_{l-1}, V_{l+1}) (`lesa_jax.predictor`); the matrix of a new layer between l and l+1 is
U diag(S) G([V_l, V_{l+1}]). Inputs are two layers apart in training and adjacent here, as published.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from lesa_jax.ahead import compile_ahead
from lesa_jax.errors import InputError
from lesa_jax.predictor import PUBLISHED, Fit, Params, PredictorSettings, compile_fit, fit, hidden_features
from lesa_jax.svd import LayerSVD, compile_layer_svd, dot, layer_svd

Space = Literal["svd", "raw"]


@flax.struct.dataclass
class Prediction:
    """New matrices of one weight kind, float32, and how they came about.

    `singular_values` descend up to rounding, with 0 for directions cut as null; in raw space there are none, size 0.
    """

    weights: Float[Array, "gaps out in"]
    fit: Fit
    singular_values: Float[Array, " r"]


def predict_layers(
    kinds: Iterable[Float[np.ndarray | Array, "layers out in"]],
    keys: PRNGKeyArray | Sequence[PRNGKeyArray],
    gaps: Sequence[int],
    settings: PredictorSettings = PUBLISHED,
    space: Space = "svd",
) -> Iterator[Prediction]:
    """Predicts the matrices of new layers for weight kinds of one shape, one `Prediction` for each kind, in order.

    On a CPU the kinds are taken, trained and yielded one after the other: two at once would push the predictor's
    weights and AdamW moments out of the cache, and an iterator of kinds then keeps one kind in memory. Elsewhere all
    kinds train at once, in one vmapped loop. Which kinds come together changes no result beyond rounding, and on a CPU
    not a bit.

    Args:
      kinds: for every kind the matrices of all layers in order, at least 3, in any float dtype. JAX arrays in float32
        are consumed: their buffers are reused.
      keys: one key for each kind.
      gaps: g stands for a new layer between layers g and g+1.
      settings: of the predictor.
      space: "svd" is LESA; "raw" predicts rows of the matrices themselves from the neighbours' rows.

    Raises:
      InputError: fewer than 3 layers, or a gap that does not exist.
    """
    kinds = iter(kinds)
    if jax.default_backend() == "cpu":
        for key in keys:
            # No name holds a kind, its V or its prediction while the next one is at work.
            yield _predict_alone(next(kinds), key, gaps, settings, space)
        return
    bases = [_basis(w, gaps, space) for w in kinds]
    v, kept = jnp.stack([basis.v for basis in bases]), jnp.stack([basis.kept for basis in bases])
    fits = jax.vmap(lambda v, kept, key: fit(v, kept, key, settings))(v, kept, jnp.stack(list(keys)))
    for i, basis in enumerate(bases):
        yield _new_matrices(basis, jax.tree.map(lambda leaf, i=i: leaf[i], fits), gaps)


def compile_predict_layers(
    shape: tuple[int, int, int],
    dtype: DTypeLike,
    gaps: Sequence[int],
    settings: PredictorSettings = PUBLISHED,
    space: Space = "svd",
) -> None:
    """Compiles what `predict_layers` will run on a CPU for kinds [layers, out, in]: for use in a thread beside it.

    Compilation is the work of one core, and the predictor's steps leave a second one partly idle.
    """
    if space == "svd":
        u, s, v, kept = compile_layer_svd(jax.ShapeDtypeStruct(shape, dtype))
    else:
        u, s = None, None
        v, kept = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape[1:2], bool)
    params = compile_fit(v, kept, settings)
    compile_ahead(_matrices, params, u, s, v, jax.ShapeDtypeStruct((len(gaps),), jnp.int32))


class RawRows(NamedTuple):
    """The weights as they are, in place of a `LayerSVD`."""

    v: Float[Array, "layers out in"]
    kept: Bool[Array, " out"]


def _predict_alone(w, key, gaps, settings, space) -> Prediction:
    w = jax.device_put(w)  # the caller's copy can go now; jnp.asarray would make two copies for a moment
    basis = _basis(w, gaps, space)
    return _new_matrices(basis, fit(basis.v, basis.kept, key, settings), gaps)


def _basis(w, gaps: Sequence[int], space: Space) -> LayerSVD | RawRows:
    """Checks one kind's matrices and takes them apart into rows to predict."""
    if w.shape[0] < 3:
        raise InputError(f"lesa learns from layers between two others: needs at least 3 layers, got {w.shape[0]}")
    if not all(0 <= gap < w.shape[0] - 1 for gap in gaps):
        raise InputError(f"gaps {list(gaps)}: with {w.shape[0]} layers, gaps go from 0 to {w.shape[0] - 2}")
    if space == "svd":
        return layer_svd(jax.device_put(w))
    return RawRows(jax.device_put(w).astype(jnp.float32), jnp.ones(w.shape[1], bool))


def _new_matrices(basis: LayerSVD | RawRows, fit: Fit, gaps: Sequence[int]) -> Prediction:
    u, s = (basis.u, basis.s) if isinstance(basis, LayerSVD) else (None, None)
    weights = _matrices(fit.params, u, s, basis.v, np.array(gaps, np.int32))
    return Prediction(weights, fit, jnp.zeros(0) if s is None else s)


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
