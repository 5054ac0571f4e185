"""How far LESA's own network predicts layers that it was not taught, which predicting zero would miss by 1.

It is taught as the method `lesa` teaches it, in the basis that all layers of a kind share, the held-out ones among
them, and held-out layers are still inputs for their neighbours, as there is no other model to take inputs from: if
anything that flatters it. The error is that of whole matrices, as U is orthonormal: of rows of diag(S) V.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lesa_jax.analysis.continuity import SEED, gram_times
from lesa_jax.initializers.lesa.predictor import PUBLISHED, Params, fit, predict
from lesa_jax.initializers.lesa.svd import layer_svd
from lesa_jax.initializers.matrices import dot

FIRST, EVERY = 3, 5  # held out is every fifth layer from this one on
DIRECTIONS = 512  # of a kind with more rows its leading ones alone, as the whole decomposition would take hours
BESIDE, ROUNDS = 8, 3  # further directions while they are looked for, and how often the layers are multiplied by them


@dataclass(frozen=True)
class Prediction:
    """Of one kind of weight.

    Attributes:
      held_out: the layers.
      error: sum of the squared errors of all held-out matrices, over that of predicting zero.
      scaled_error: the same of the predictions times the factor that suits them best, at most 1: predictions may say
        something and be too loud.
      directions: singular directions that are predicted; those beyond are no part of the error.
    """

    held_out: tuple[int, ...]
    error: float
    scaled_error: float
    directions: int


def held_out_layers(layers: int) -> tuple[int, ...]:
    """Which layers are not taught, of interior ones; none where that would leave nothing to learn from."""
    return tuple(range(min(FIRST, layers // 2), layers - 1, EVERY)) if layers > 3 else ()


def prediction(w: Float[np.ndarray, "layers out in"], lowest: int = 0) -> Prediction | None:
    """Trains LESA's network on one kind of weight.

    Args:
      w: its matrices, any dtype.
      lowest: the number of the first of these layers.

    Returns:
      What came of it; None of fewer than four layers, or if all held-out ones are zero.
    """
    if not (held_out := held_out_layers(len(w))):
        return None
    basis = layer_svd(leading_rows(w, DIRECTIONS))
    v, s, kept = basis.v[:, :DIRECTIONS], basis.s[:DIRECTIONS], basis.kept[:DIRECTIONS]
    params = fit(v, kept, jax.random.key(SEED), PUBLISHED, held_out=held_out).params
    sums = np.asarray(_sums(params, s, v, jnp.array(held_out, jnp.int32)), np.float64).sum(axis=1)
    truth, power, product = sums.tolist()
    if truth == 0:
        return None
    scaled = 1 - (max(product, 0) ** 2 / power / truth if power > 0 else 0)
    numbers = tuple(lowest + layer for layer in held_out)
    return Prediction(numbers, (truth + power - 2 * product) / truth, scaled, int(kept.sum()))


def leading_rows(w: Float[np.ndarray, "layers out in"], count: int) -> Float[Array, "layers rows in"]:
    """The layers, or Q^T W_l for an orthonormal Q that spans a few more than their `count` leading directions.

    By subspace iteration: products with the layers, where a whole decomposition would take hours. float32, a copy.
    """
    stack, out = jnp.asarray(w), w.shape[1]
    if out <= count + BESIDE:
        return jnp.array(stack, jnp.float32)
    q = jnp.asarray(np.random.default_rng(SEED).standard_normal((out, count + BESIDE)), jnp.float32)
    for _ in range(ROUNDS):
        q, _ = jnp.linalg.qr(gram_times(stack, q))
    return _seen_from(q, stack)


@jax.jit
def _seen_from(q: Float[Array, "out rows"], w: Float[Array, "layers out in"]) -> Float[Array, "layers rows in"]:
    return jax.lax.map(lambda w_l: dot(q.T, w_l.astype(jnp.float32)), w)


@jax.jit
def _sums(
    params: Params, s: Float[Array, " r"], v: Float[Array, "layers r in"], layers: Int[Array, " held_out"]
) -> tuple[Float[Array, " held_out"], Float[Array, " held_out"], Float[Array, " held_out"]]:
    """|y|^2, |p|^2 and p.y of each layer's truth y and prediction p."""

    def of_layer(layer):
        y = s[:, None] * v[layer]
        p = s[:, None] * predict(params, jnp.concatenate([v[layer - 1], v[layer + 1]], axis=1))
        # Row by row: a float32 sum over all entries loses digits.
        return tuple(jnp.sum(jnp.sum(x, axis=1)) for x in (y * y, p * p, p * y))

    return jax.lax.map(of_layer, layers)
