"""How loud each new layer should be: the factor on its output projections that makes the loss on a text least.

With all factors 0 the grown model is the original (Net2Deeper, LLaMA Pro); the search starts there and never ends
higher, so calibration can only improve on the original, on the text that it is given.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.optimize import minimize

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.names import Tree
from lesa_jax.checkpoint.writer import Layout, rewrite
from lesa_jax.evaluation.factors import row_loss
from lesa_jax.evaluation.sample import sample_rows
from lesa_jax.families.model import ModelConfig
from lesa_jax.growth.recipe import Part
from lesa_jax.models.load import load_model
from lesa_jax.planning.plan import Plan

EVALUATIONS = 40  # of loss and gradient, at most


def calibrate(
    folder: Path, layout: Layout, parts: Sequence[Part], plan: Plan, text: str
) -> tuple[tuple[float, ...], dict[str, float]]:
    """Finds the factors for a grown checkpoint whose new layers have factor 1, and writes them into its weights.

    Args:
      folder, layout, parts, plan: of the grown checkpoint.
      text: whose first tokens are predicted.

    Returns:
      The factor of each new layer, and the losses in nats a token: of the "base", as "grown", and "calibrated".

    Raises:
      InputError: a text shorter than two tokens; damaged weights.
    """
    params, config = load_model(folder)
    rows = jnp.asarray(sample_rows(folder, text, config))
    new = np.array(plan.new_layers)

    def loss_and_gradient(scales: np.ndarray) -> tuple[float, np.ndarray]:
        factors = np.ones(plan.layers, np.float32)
        factors[new] = scales
        loss, gradient = _loss_and_gradient(jnp.asarray(factors), params, rows, config)
        return float(loss), np.asarray(gradient, np.float64)[new]

    with jax.default_matmul_precision("highest"):
        scales, losses = search(loss_and_gradient, len(new))
    for part in parts:
        if part.new and (loudness := part.loudness) is not None:
            position = int(part.name.removeprefix(part.stack.prefix).split(".")[0])
            scale = scales[plan.new_layers.index(position)]
            rewrite(folder, layout, part.name, lambda x, a=scale, of=loudness: of.scaled(x.astype(np.float64), a))
    return tuple(scales.tolist()), losses


def search(loss_and_gradient: Any, count: int) -> tuple[np.ndarray, dict[str, float]]:
    """The best of the points that L-BFGS visits on its way from 0, and the losses at 0, at 1 and there.

    Raises:
      InputError: the loss at 0 is not a number.
    """
    visited: list[tuple[float, np.ndarray]] = []

    def visit(scales: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = loss_and_gradient(scales)
        if np.isfinite(loss):
            visited.append((loss, scales.copy()))
        return loss, gradient

    start = np.zeros(count)
    base, _ = visit(start)
    if not np.isfinite(base):
        raise InputError("--calibrate: the original's loss on this text is not a number; its weights are damaged")
    grown, _ = loss_and_gradient(np.ones(count))
    minimize(visit, start, jac=True, method="L-BFGS-B", options={"maxfun": EVALUATIONS})
    best, scales = min(visited, key=lambda point: point[0])
    return scales, {"base": base, "grown": grown, "calibrated": best}


@functools.partial(jax.jit, static_argnames="config")
def _loss_and_gradient(
    factors: Float[Array, " layers"], params: Tree, rows: Int[Array, "rows tokens"], config: ModelConfig
) -> tuple[Float[Array, ""], Float[Array, " layers"]]:
    of_row = jax.value_and_grad(row_loss)
    losses, gradients = jax.lax.map(lambda row: of_row(factors, params, row, config), rows)
    return losses.mean(), gradients.mean(axis=0)
