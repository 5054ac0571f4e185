"""What the numbers of a comparison come to: computed once, from which all files of the report are made."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lesa_jax.comparison.curves import ROUNDING, MeanCurve, Spent, mean_curve, perplexity, spread
from lesa_jax.comparison.result import Comparison
from lesa_jax.comparison.rows import Measured, Row, labels, make_row


class Start(NamedTuple):
    """The perplexities over seeds of an outcome before training."""

    position: int
    mean: float
    sd: float | None
    lowest: float
    highest: float


class Lowest(NamedTuple):
    """Which outcomes are lowest, with one value if they differ by rounding only; and which are within one standard
    deviation (the larger of the two) of that."""

    positions: tuple[int, ...]
    mean: float
    sd: float | None
    close: tuple[int, ...]


class LossRange(NamedTuple):
    """Ends of the loss axis in nats, and the outcomes whose curves begin or stay above it."""

    low: float
    high: float
    above: tuple[int, ...]


@dataclass(frozen=True)
class Statistics:
    """What a comparison's numbers come to. An outcome is named by its position: base's is 0.

    Attributes:
      comparison: whose numbers.
      rows: one for each outcome.
      labels: a name for each outcome, no two alike unless they cannot be told apart.
      is_trained: whether there is anything about training to be shown.
      base_loss: base's before training, in nats; None if unknown.
      starts: of all outcomes that have a finite perplexity before training, the lowest first.
      lowest_start: of the grown models before training; None if none was measured.
      below_base: grown models that start below base.
      lowest_end: of all, base among them, after training; None if none was trained.
      at_base: grown models that end at or below base's loss before training.
      from_base: grown models that are there before they are trained, as those are that do not change the function.
      at_trained_base, at_trained_base_flops: grown models that end at or below base's own curve, at equal tokens and
        at equal operations.
      below_control: grown models that end below their control.
      curves: means over seeds by outcome, where there are two evaluations or more.
      loss_range: what of them is shown.
      spent: the most that any outcome has spent: the ends of axes.
    """

    comparison: Comparison
    rows: tuple[Row, ...]
    labels: tuple[str, ...]
    is_trained: bool
    base_loss: float | None
    starts: tuple[Start, ...]
    lowest_start: Lowest | None
    below_base: tuple[int, ...]
    lowest_end: Lowest | None
    at_base: tuple[int, ...]
    from_base: tuple[int, ...]
    at_trained_base: tuple[int, ...]
    at_trained_base_flops: tuple[int, ...]
    below_control: tuple[int, ...]
    curves: Mapping[int, MeanCurve]
    loss_range: LossRange
    spent: Spent


def summarise(comparison: Comparison) -> Statistics:
    """All statistics of a comparison, whose first outcome is base."""
    outcomes = comparison.outcomes
    means = [mean_curve(outcome.curves) for outcome in outcomes]
    target = base_loss(comparison, means[0])
    measured = [Measured(*parts) for parts in zip(outcomes, means, labels(outcomes), strict=True)]
    rows = tuple(
        make_row(this, measured[0], None if this.outcome.control is None else measured[this.outcome.control], target)
        for this in measured
    )
    starts = {i: (r.initial_perplexity, r.initial_sd) for i, r in enumerate(rows) if r.initial_perplexity is not None}
    ends = {i: (r.perplexity, r.perplexity_sd) for i, r in enumerate(rows) if r.perplexity is not None}
    curves = {i: mean for i, mean in enumerate(means) if len(mean) > 1}
    base_start = starts[0][0] if 0 in starts else -math.inf
    base_level = -math.inf if target is None else perplexity(target)
    below_base = tuple(i for i, (mean, _) in starts.items() if i and mean < base_start * (1 - ROUNDING))
    return Statistics(
        comparison=comparison,
        rows=rows,
        labels=tuple(this.label for this in measured),
        is_trained=any(point.tokens > 0 for outcome in outcomes for curve in outcome.curves for point in curve),
        base_loss=target,
        starts=tuple(
            Start(i, mean, sd, min(outcomes[i].initial), max(outcomes[i].initial))
            for i, (mean, sd) in sorted(starts.items(), key=lambda item: (round(item[1][0], 4), item[0]))
        ),
        lowest_start=lowest({i: start for i, start in starts.items() if i}),
        below_base=below_base,
        lowest_end=lowest(ends),
        at_base=tuple(i for i, (mean, _) in ends.items() if i and mean <= base_level * (1 + ROUNDING)),
        from_base=tuple(i for i, row in enumerate(rows) if i and row.tokens_to_base == 0 and i not in below_base),
        at_trained_base=where(rows, "over_trained_base", 1 + ROUNDING),
        at_trained_base_flops=where(rows, "over_trained_base_flops", 1 + ROUNDING),
        below_control=where(rows, "over_control", 1 - ROUNDING),
        curves=curves,
        loss_range=loss_range(curves, target),
        spent=most_spent(means),
    )


def where(rows: Sequence[Row], ratio: str, most: float) -> tuple[int, ...]:
    """The rows of which a ratio is known and at most so large."""
    return tuple(i for i, row in enumerate(rows) if (value := getattr(row, ratio)) is not None and value <= most)


def base_loss(comparison: Comparison, mean: MeanCurve) -> float | None:
    """Base's loss in nats before training: measured with its curves, or of its perplexity; None if unknown."""
    if mean and mean[0].tokens == 0:
        return mean[0].loss
    start, _ = spread(comparison.outcomes[0].initial)
    # A mean of lines' perplexities is not the exponential of a loss per token.
    return math.log(start) if start and not comparison.protocol.startswith("line") else None


def lowest(measured: Mapping[int, tuple[float, float | None]]) -> Lowest | None:
    """The lowest of means with standard deviations, by position."""
    if not measured:
        return None
    best, best_sd = min(measured.values(), key=lambda value: value[0])
    positions = tuple(i for i, (mean, _) in measured.items() if mean <= best * (1 + ROUNDING))
    close = (
        i for i, (mean, sd) in measured.items() if i not in positions and mean - best <= max(sd or 0.0, best_sd or 0.0)
    )
    return Lowest(positions, best, best_sd, tuple(close))


def loss_range(curves: Mapping[int, MeanCurve], target: float | None) -> LossRange:
    """What is shown of mean curves and of base's loss before training.

    Every end is shown, unless it is far above most, and so is every start that does not more than double the axis.
    """
    ends = [curve[-1].loss for curve in curves.values()] + ([] if target is None else [target])
    if not ends:
        return LossRange(0.0, 1.0, ())
    low = min([*ends, *(point.loss for curve in curves.values() for point in curve)])
    far = low + max(1.0, 4 * (statistics.median(ends) - low))
    high = max(end for end in ends if end <= far)
    starts = [curve[0].loss for curve in curves.values()]
    reach = max(2 * high - low, high + 0.02)
    high = max([high, *(start for start in starts if start <= reach)])
    margin = 0.05 * (high - low) or 0.05
    above = tuple(i for i, curve in curves.items() if curve[0].loss > high + margin)
    return LossRange(low - margin, high + margin, above)


def most_spent(curves: Sequence[MeanCurve]) -> Spent:
    """The largest tokens, flops and seconds of any point, of those that are known."""
    points = [Spent(point.tokens, point.flops, point.seconds) for curve in curves for point in curve]
    if not points:
        return Spent(1.0, 1.0, 1.0)
    return Spent(*(float(max(filter(math.isfinite, values), default=0.0)) for values in zip(*points, strict=True)))
