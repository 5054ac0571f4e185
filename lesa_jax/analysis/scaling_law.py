"""Loss as a sum of power laws and a floor: how it falls with depth, width and data.

L(x, y, ..) = c_x x^-a_x + c_y y^-a_y + .. + L0, fitted in the logarithm of loss by Levenberg and Marquardt's method, as
"Inverse Depth Scaling From Most Layers Being Similar" (arXiv 2602.05970) fits width, depth and tokens. The objective
is not convex, so that the fit begins at many points. Standard errors are those of least squares at the optimum.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import least_squares

from lesa_jax.base.errors import InputError

# Where fits begin: each term's exponent, and the floor as a share of the lowest loss.
EXPONENTS, FLOORS = (0.3, 1.0, 2.0), (0.6, 0.9)
SAME = 1e-6  # optima whose objectives differ by less than this share are one

Sizes = Float[np.ndarray, "terms runs"]
Losses = Float[np.ndarray, " runs"]
# Logarithms of prefactors, then exponents, then the floor.
Parameters = Float[np.ndarray, " parameters"]


@dataclass(frozen=True)
class Law:
    """A fitted law of `terms` power laws; all of it in the units of sizes and losses that it was fitted to.

    Attributes:
      log_prefactors, exponents: ln c and a of each term.
      floor: L0, what no size removes.
      objective: mean square of the logarithm of predicted over measured loss.
      covariance: of (log_prefactors, exponents, floor), sigma^2 (J^T J)^-1; infinite if the runs do not determine all.
      agreeing: the share of beginnings from which the fit ends here.
    """

    log_prefactors: Float[np.ndarray, " terms"]
    exponents: Float[np.ndarray, " terms"]
    floor: float
    objective: float
    covariance: Float[np.ndarray, "parameters parameters"]
    agreeing: float

    @property
    def parameters(self) -> Parameters:
        return np.concatenate([self.log_prefactors, self.exponents, [self.floor]])

    @property
    def errors(self) -> Parameters:
        """Standard errors of `parameters`, in their order."""
        return np.sqrt(np.diag(self.covariance))

    def predict(self, sizes: Sizes) -> Losses:
        """Losses of runs of these sizes."""
        return power_laws(self.log_prefactors, self.exponents, np.log(sizes)).sum(axis=0) + self.floor

    def predict_error(self, sizes: Sizes) -> Losses:
        """Standard errors of `predict`, from the parameters' alone: noise of a run is not among them."""
        terms = power_laws(self.log_prefactors, self.exponents, np.log(sizes))
        slopes = np.concatenate([terms, -terms * np.log(sizes), np.ones((1, sizes.shape[1]))])
        return np.sqrt(np.einsum("pr,pq,qr->r", slopes, self.covariance, slopes))


def fit_law(sizes: Sizes, losses: Losses) -> Law:
    """The law of least squares, the best of many beginnings.

    Args:
      sizes: of each run in each term, as layers, width or tokens; positive, in any unit.
      losses: positive.

    Raises:
      InputError: no more runs than parameters, a size that all runs share, or a number that is not positive and finite.
    """
    check(sizes, losses)
    starts = list(itertools.product(FLOORS, *[EXPONENTS] * len(sizes)))
    logs = np.log(sizes)
    found = [descend(logs, losses, start(logs, losses, np.array(exponents), floor)) for floor, *exponents in starts]
    squares = np.array([objective for _, objective in found])
    best, least = found[int(np.argmin(squares))]
    return describe(sizes, losses, best, float(np.mean(squares <= least * (1 + SAME) + np.finfo(float).tiny)))


def refit(law: Law, sizes: Sizes, losses: Losses) -> Law:
    """The law of other runs, looked for from a known one's place alone."""
    check(sizes, losses)
    found, _ = descend(np.log(sizes), losses, law.parameters)
    return describe(sizes, losses, found, 1.0)


def bootstrap(
    law: Law, sizes: Sizes, losses: Losses, resamples: int, seed: int = 0
) -> Float[np.ndarray, "resamples parameters"]:
    """Parameters of the laws of as many runs drawn with replacement, `resamples` times."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(losses), size=len(losses)) for _ in range(resamples))
    return np.array([refit(law, sizes[:, runs], losses[runs]).parameters for runs in drawn])


def held_out_errors(
    law: Law, sizes: Sizes, losses: Losses, splits: int = 10, share: float = 0.2, seed: int = 0
) -> Float[np.ndarray, "splits 2"]:
    """Mean relative errors on runs that were fitted and on a share that was kept out, for random splits."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        out = np.zeros(len(losses), bool)
        out[rng.permutation(len(losses))[: int(share * len(losses))]] = True
        own = refit(law, sizes[:, ~out], losses[~out])
        off = np.abs(own.predict(sizes) / losses - 1)
        found.append((off[~out].mean(), off[out].mean()))
    return np.array(found)


def without_worst(losses: Losses, count: int) -> Bool[np.ndarray, " runs"]:
    """Which runs are below the `count`-th highest loss: those above it were trained too little for a law."""
    return losses < np.sort(losses)[-count] if count else np.ones(len(losses), bool)


def check(sizes: Sizes, losses: Losses) -> None:
    """Refuses runs that no law can be fitted to."""
    parameters = 2 * len(sizes) + 1
    if len(losses) <= parameters:
        raise InputError(f"a law of {parameters} parameters needs more than {parameters} runs, not {len(losses)}")
    numbers = np.concatenate([sizes, losses[None]])
    if not (np.isfinite(numbers).all() and (numbers > 0).all()):
        raise InputError("a law needs sizes and losses that are positive and finite; leave other runs out")
    if any(np.ptp(size) == 0 for size in sizes):
        raise InputError("a law needs sizes that differ between runs; leave out the term that does not")


def power_laws(
    log_prefactors: Float[np.ndarray, " terms"], exponents: Float[np.ndarray, " terms"], logs: Sizes
) -> Float[np.ndarray, "terms runs"]:
    """Each term's part of the loss, from the logarithms of sizes."""
    return np.exp(log_prefactors[:, None] - exponents[:, None] * logs)


def start(logs: Sizes, losses: Losses, exponents: Float[np.ndarray, " terms"], floor: float) -> Parameters:
    """A beginning: a floor, and above it all terms alike at the middle of the sizes."""
    lowest = floor * losses.min()
    shares = np.full(len(logs), np.log((np.median(losses) - lowest) / len(logs)))
    return np.concatenate([shares + exponents * logs.mean(axis=1), exponents, [lowest]])


def descend(logs: Sizes, losses: Losses, begin: Parameters) -> tuple[Parameters, float]:
    """The optimum that is reached from a beginning, and its objective.

    Sizes are taken relative to their middle, where a prefactor hardly depends on its exponent, and the floor by its
    logarithm, so that it stays positive.
    """
    middle, terms = logs.mean(axis=1), len(logs)
    centred, wanted = logs - middle[:, None], np.log(losses)

    def residuals(inner: Parameters) -> Losses:
        parts = power_laws(inner[:terms], inner[terms:-1], centred)
        return np.log(parts.sum(axis=0) + np.exp(inner[-1])) - wanted

    def slopes(inner: Parameters) -> Float[np.ndarray, "runs parameters"]:
        parts = power_laws(inner[:terms], inner[terms:-1], centred)
        floor = np.full((1, len(losses)), np.exp(inner[-1]))
        return (np.concatenate([parts, -parts * centred, floor]) / (parts.sum(axis=0) + floor)).T

    inner = np.concatenate([begin[:terms] - begin[terms:-1] * middle, begin[terms:-1], [np.log(begin[-1])]])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        jacobian: Any = slopes  # which scipy's annotations take for a method's name
        found = least_squares(residuals, inner, jacobian, method="lm", ftol=1e-15, xtol=1e-15, gtol=1e-15)
    x = found.x
    ended = np.concatenate([x[:terms] + x[terms:-1] * middle, x[terms:-1], [np.exp(x[-1])]])
    return ended, 2 * float(found.cost) / len(losses)


def describe(sizes: Sizes, losses: Losses, found: Parameters, agreeing: float) -> Law:
    """A law with its errors."""
    terms, logs = len(sizes), np.log(sizes)
    parts = power_laws(found[:terms], found[terms:-1], logs)
    total = parts.sum(axis=0) + found[-1]
    slopes = (np.concatenate([parts, -parts * logs, np.ones((1, len(losses)))]) / total).T
    squares = np.square(np.log(total / losses))
    # A column is scaled to length 1: the rank is not to depend on units.
    size = np.linalg.norm(slopes, axis=0)
    scaled = slopes / np.where(size > 0, size, 1)
    if np.linalg.matrix_rank(scaled) < len(found):
        covariance = np.full((len(found), len(found)), np.inf)
    else:
        inverse = np.linalg.inv(scaled.T @ scaled) / np.outer(size, size)
        covariance = squares.sum() / (len(losses) - len(found)) * inverse
    return Law(found[:terms], found[terms:-1], float(found[-1]), float(squares.mean()), covariance, agreeing)
