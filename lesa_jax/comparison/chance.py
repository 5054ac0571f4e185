"""Whether a difference between two rows may be chance: by its sign over seeds and over windows of the held-out text.

Rows are trained on the same batches seed by seed and measured on the same windows, so that both are pairs. Windows are
many and seeds few: windows tell two trained models apart, seeds tell what another training would bring.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lesa_jax.comparison.curves import ROUNDING
from lesa_jax.comparison.result import Outcome

LEVEL = 0.05  # of tests, two-sided; intervals leave as much outside
RESAMPLES = 2000
DRAWN = 1 << 20  # windows at a time: reports of many rows stay quick, and texts of many lines fit into memory
LEAST_SEEDS = 3  # of an interval


class SignTest(NamedTuple):
    """In how many pairs the first is lower, `of` those that differ; and how likely so uneven a count is by chance."""

    lower: int
    of: int
    p: float


@dataclass(frozen=True)
class Difference:
    """How far above another row a row ends on the held-out text; below 0 it is the better one.

    Attributes:
      against: "trained base", "control" or "best rival".
      other: what the other row is called.
      loss: mean over the seeds that both have, in nats per token.
      low, high: 95 % interval of it over windows (`bootstrap`); None where their losses are not known.
      windows: sign test over windows, of losses that are means over seeds; None as above.
      seeds: sign test over seeds.
      may_be_chance: whether the tests leave that open.
    """

    against: str
    other: str
    loss: float
    low: float | None
    high: float | None
    windows: SignTest | None
    seeds: SignTest
    may_be_chance: bool


def difference(this: Outcome, other: Outcome, against: str, name: str) -> Difference | None:
    """How far above another outcome one ends, over the seeds that ended at the same tokens; None where there is none.

    Args:
      this, other: trained, each with a curve for each seed, which is empty where that seed is not trained yet.
      against: what the other one is to this one.
      name: what the other one is called.
    """
    pairs = [
        (seed, a[-1].loss - b[-1].loss)
        for seed, (a, b) in enumerate(zip(this.curves, other.curves, strict=False))
        if a and b and a[-1].tokens == b[-1].tokens > 0
    ]
    losses = [loss for _, loss in pairs]
    if not losses or not np.isfinite(losses).all():
        return None
    seeds, windows, low, high = sign_test(losses), None, None, None
    paired = paired_windows(this, other, [seed for seed, _ in pairs])
    if paired is not None:
        windows, (low, high) = sign_test(paired[0]), bootstrap(*paired)
    mean = float(np.mean(losses))
    return Difference(against, name, mean, low, high, windows, seeds, may_be_chance(seeds, windows, low, high))


def may_be_chance(seeds: SignTest, windows: SignTest | None, low: float | None, high: float | None) -> bool:
    """Whether windows leave a difference open, or seeds do as far as so many of them could say otherwise."""
    if windows is None or low is None or high is None:
        return seeds.p > LEVEL
    return windows.p > LEVEL or low <= 0 <= high or seeds.p > max(LEVEL, least_p(seeds.of))


def least_p(count: int) -> float:
    """What a two-sided sign test finds where all of so many pairs agree."""
    return min(1.0, 2.0 ** (1 - count))


def sign_test(differences: Sequence[float] | Float[np.ndarray, " n"]) -> SignTest:
    """Exact and two-sided; pairs that differ by rounding only are none."""
    from scipy.stats import binomtest  # slow to import

    told = [value for value in differences if abs(value) > ROUNDING]
    lower = sum(1 for value in told if value < 0)
    return SignTest(lower, len(told), float(binomtest(lower, len(told)).pvalue) if told else 1.0)


def paired_windows(
    this: Outcome, other: Outcome, seeds: Sequence[int]
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]] | None:
    """Differences of the windows' losses, means over seeds, in nats per token; and how many tokens each window has.

    None where a seed's windows are not known, or are not those of the others.
    """
    if max(seeds) >= min(len(this.windows), len(other.windows)):
        return None
    runs = [outcome.windows[seed] for outcome in (this, other) for seed in seeds]
    counts = [[window.tokens for window in run] for run in runs]
    if not counts[0] or any(count != counts[0] for count in counts):
        return None
    losses = np.array([[window.nll for window in run] for run in runs])
    if not np.isfinite(losses).all():
        return None
    half = len(seeds)
    return losses[:half].mean(0) - losses[half:].mean(0), np.array(counts[0])


def bootstrap(differences: Float[np.ndarray, " n"], tokens: Int[np.ndarray, " n"]) -> tuple[float, float]:
    """Percentile interval of the mean over tokens, if windows are drawn anew; the same ones in every call.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    random, count, totals = np.random.default_rng(0), len(tokens), differences * tokens
    batch, means = max(1, DRAWN // count), []
    for done in range(0, RESAMPLES, batch):
        draws = random.integers(count, size=(min(batch, RESAMPLES - done), count))
        means.append(totals[draws].sum(1) / tokens[draws].sum(1))
    low, high = np.quantile(np.concatenate(means), [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def mean_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Student's 95 % interval of the mean over seeds; none of fewer than three, or of values that are not finite."""
    from scipy.stats import t  # slow to import

    if len(values) < LEAST_SEEDS or not np.isfinite(values).all():
        return None, None
    reach = t.ppf(1 - LEVEL / 2, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values) - reach), float(np.mean(values) + reach)
