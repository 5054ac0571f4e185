"""Grids of predictors in one program, a linear predictor in closed form, and errors on layers that were held out.

One training sample is one row k of one interior layer l (see `lesa_jax.initializers.lesa.predictor`). A held-out
layer is never a target; it is still an input of its neighbours' samples, as there is no other model to take inputs
from.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from lesa_jax.initializers.lesa.predictor import PUBLISHED, Params, PredictorSettings, init_params, predict, train
from lesa_jax.initializers.lesa.svd import LayerSVD
from lesa_jax.initializers.matrices import dot

Apply = Callable[[Params, Array], Array]  # rows of two neighbours side by side -> predicted rows


@dataclass(frozen=True)
class Member:
    """One predictor of a grid: what may differ between predictors that train in one program."""

    seed: int = 0
    norm_weight: float = PUBLISHED.norm_weight
    learning_rate: float = PUBLISHED.learning_rate


def training_samples(
    kept: Bool[np.ndarray, " rows"], layers: int, held_out: Sequence[int] = ()
) -> Int[np.ndarray, " samples"]:
    """Numbers (l - 1) * rows + k of the samples whose target layer is not held out and whose direction is kept."""
    wanted = ~np.isin(np.arange(1, layers - 1), np.array(held_out, int))
    return np.flatnonzero(wanted[:, None] & np.asarray(kept)[None, :])


def sample_batches(
    samples: Int[np.ndarray, " samples"], seed: int, settings: PredictorSettings
) -> tuple[Int[np.ndarray, "epochs steps batch"], Float[np.ndarray, "epochs steps batch"]]:
    """A fresh order for every epoch, the last batch partial; what `predictor.train` takes.

    Fewer epochs are the beginning of more.
    """
    rng, steps = np.random.default_rng(seed), -(-len(samples) // settings.batch_size)
    shape = (settings.epochs, steps, settings.batch_size)
    flat = np.zeros((settings.epochs, steps * settings.batch_size), np.int32)
    for epoch in flat:
        epoch[: len(samples)] = rng.permutation(samples)
    used = np.broadcast_to(np.arange(flat.shape[1]) < len(samples), flat.shape)
    return flat.reshape(shape), used.astype(np.float32).reshape(shape)


def fit_grid(
    basis: LayerSVD,
    members: Sequence[Member],
    settings: PredictorSettings = PUBLISHED,
    held_out: Sequence[int] = (),
) -> Params:
    """Trains all members in one vmapped, jitted loop; their parameters have a leading axis of members.

    The members' norm weights and learning rates count, those of `settings` do not.
    """
    samples = training_samples(np.asarray(basis.kept), basis.v.shape[0], held_out)
    batches = {member.seed: sample_batches(samples, member.seed, settings) for member in members}
    orders = jnp.asarray(np.stack([batches[member.seed][0] for member in members]))
    used = jnp.asarray(batches[members[0].seed][1])
    keys = jnp.stack([jax.random.key(member.seed) for member in members])
    norm_weights = jnp.array([member.norm_weight for member in members], jnp.float32)
    rates = jnp.array([member.learning_rate for member in members], jnp.float32)
    return _fit_grid(basis.v, orders, used, keys, norm_weights, rates, settings)


@functools.partial(jax.jit, static_argnames="settings")
def _fit_grid(v, orders, used, keys, norm_weights, rates, settings: PredictorSettings) -> Params:
    def fit_one(key, order, norm_weight, rate):
        params = init_params(key, v.shape[2], settings)
        return train(params, v, order, used, norm_weight, settings, rate).params

    return jax.vmap(fit_one)(keys, orders, norm_weights, rates)


def fit_ridge(basis: LayerSVD, ridges: Sequence[float], held_out: Sequence[int] = ()) -> Params:
    """The best linear map from two neighbours' rows to the row between them, in closed form and float64.

    Minimises sum |x A - y|^2 + r * m * |A|^2 for each r of `ridges`, m the mean eigenvalue of the inputs' Gram matrix.
    There is no intercept: rows of V have hardly a mean.
    """
    return {"kernel": jnp.asarray(np.stack(ridge_kernels(*samples_of(basis, held_out), ridges)), jnp.float32)}


def ridge_kernels(x: np.ndarray, y: np.ndarray, ridges: Sequence[float]) -> list[np.ndarray]:
    """The maps of `fit_ridge` from the rows of x to those of y, one for each penalty."""
    values, vectors = np.linalg.eigh(x.T @ x)
    xy, mean = vectors.T @ (x.T @ y), values.mean()
    return [vectors @ (xy / (values + ridge * mean)[:, None]) for ridge in ridges]


def samples_of(basis: LayerSVD, held_out: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
    """All inputs and targets as float64 rows."""
    v = np.asarray(basis.v, np.float64)
    rows = v.shape[1]
    layer, row = np.divmod(training_samples(np.asarray(basis.kept), len(v), held_out), rows)
    return np.concatenate([v[layer, row], v[layer + 2, row]], axis=1), v[layer + 1, row]


def linear(params: Params, x: Array) -> Array:
    """What `fit_ridge` fits."""
    return dot(x, params["kernel"])


@functools.partial(jax.jit, static_argnames="apply")
def predicted_rows(
    params: Params, v: Float[Array, "layers rows in"], below: Array, above: Array, apply: Apply = predict
) -> Float[Array, "members pairs rows in"]:
    """Every member's rows for every pair of input layers."""

    def pair(low, high):
        x = jnp.concatenate([v[low], v[high]], axis=1)
        return jax.vmap(lambda member: apply(member, x))(params)

    return jnp.moveaxis(jax.vmap(pair)(below, above), 0, 1)


@jax.jit
def as_matrices(u: Array, s: Array, rows: Float[Array, "*stack r in"]) -> Float[Array, "*stack out in"]:
    """U diag(S) rows."""
    return jnp.einsum("or,...ri->...oi", u * s[None, :], rows, precision=lax.Precision.HIGHEST)


def predicted_matrices(
    bases: Mapping[str, LayerSVD],
    fits: Mapping[str, Params],
    below: Sequence[int],
    above: Sequence[int],
    apply: Apply = predict,
) -> dict[str, Float[Array, "members pairs out in"]]:
    """For every kind, what every member puts between each pair of layers."""
    matrices = {}
    for kind, basis in bases.items():
        rows = predicted_rows(fits[kind], basis.v, np.array(below), np.array(above), apply)
        matrices[kind] = as_matrices(basis.u, basis.s, rows)
    return matrices


def member(matrices: Mapping[str, Array], number: int) -> dict[str, Float[Array, "pairs out in"]]:
    return {kind: stack[number] for kind, stack in matrices.items()}


def prediction_errors(
    basis: LayerSVD, params: Params, held_out: Sequence[int], apply: Apply = predict
) -> list[dict[str, float]]:
    """For every member, how good its predictions of rows of V are on layers it learnt from and on held-out ones.

    Error is sum (p - y)^2 / sum y^2: predicting zero has 1. Cosine is that of all predicted with all true rows: the
    error that the best scaling of the prediction could reach is 1 - cosine^2. Norm is |p| / |y|.
    """
    interior = np.arange(1, basis.v.shape[0] - 1)
    rows = predicted_rows(params, basis.v, interior - 1, interior + 1, apply) * basis.kept[None, None, :, None]
    error, energy, power, product = (np.asarray(x, np.float64) for x in _sums(rows, basis.v[1:-1]))
    results: list[dict[str, float]] = [{} for _ in error]
    out = np.isin(interior, np.array(held_out, int))
    for name, chosen in (("train", ~out), ("held_out", out)):
        if not chosen.any():
            continue
        truth = energy[chosen].sum()
        for result, e, p, c in zip(results, error[:, chosen], power[:, chosen], product[:, chosen], strict=True):
            result[f"error_{name}"] = float(e.sum() / truth)
            result[f"cosine_{name}"] = float(c.sum() / max(np.sqrt(truth * p.sum()), 1e-30))
            result[f"norm_{name}"] = float(np.sqrt(p.sum() / truth))
    return results


@jax.jit
def _sums(p, y) -> Any:
    """Sums over rows: squared error, squared target [layers], squared prediction, product [members, layers]."""
    over = (-2, -1)
    y = y[None]
    return jnp.sum((p - y) ** 2, over), jnp.sum(y**2, over)[0], jnp.sum(p**2, over), jnp.sum(p * y, over)
