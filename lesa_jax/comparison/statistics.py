"""What the numbers of a comparison come to: computed once, from which all files of the report are made."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lesa_jax.comparison.chance import Difference
from lesa_jax.comparison.curves import ROUNDING, MeanCurve, Spent, mean_curve, perplexity, spread
from lesa_jax.comparison.forgetting import Forgetting, find_forgetting
from lesa_jax.comparison.ranges import LossRange, loss_range
from lesa_jax.comparison.result import Comparison
from lesa_jax.comparison.rows import Measured, Row, best_rival, differences, labels, make_row
from lesa_jax.comparison.scores import TaskTable, task_tables
from lesa_jax.comparison.variants import ORIGINALS


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


@dataclass(frozen=True)
class Statistics:
    """What a comparison's numbers come to. An outcome is named by its position: base's is 0.

    Attributes:
      comparison: whose numbers.
      rows: one for each outcome.
      differences: of each outcome, how far above base, its control and the best rival it ends.
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
      frontier: of those whose loss on what was known is known after training, base among them, the ones than which no
        other has both learned more and forgotten less.
      forgetting: what is learned against what is forgotten.
      curves: means over seeds by outcome, where there are two evaluations or more.
      loss_range: what of them is shown.
      spent: the most that any outcome has spent: the ends of axes.
      tasks: scores of all outcomes, for each task that was asked.
    """

    comparison: Comparison
    rows: tuple[Row, ...]
    differences: tuple[tuple[Difference, ...], ...]
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
    frontier: tuple[int, ...]
    forgetting: Forgetting
    curves: Mapping[int, MeanCurve]
    loss_range: LossRange
    spent: Spent
    tasks: tuple[TaskTable, ...]


def summarise(comparison: Comparison) -> Statistics:
    """All statistics of a comparison, whose first outcome is base."""
    outcomes = comparison.outcomes
    means = [mean_curve(outcome.curves) for outcome in outcomes]
    target = base_loss(comparison, means[0])
    measured = [Measured(*parts) for parts in zip(outcomes, means, labels(outcomes), strict=True)]
    base = measured[0]
    controls = [None if this.outcome.control is None else measured[this.outcome.control] for this in measured]
    rivals = [best_rival(this, measured) for this in measured]
    held = [*zip(measured, controls, rivals, strict=True)]
    rows = tuple(make_row(this, base, control, target, rival) for this, control, rival in held)
    starts = {i: (r.initial_perplexity, r.initial_sd) for i, r in enumerate(rows) if r.initial_perplexity is not None}
    ends = {i: (r.perplexity, r.perplexity_sd) for i, r in enumerate(rows) if r.perplexity is not None}
    curves = {i: mean for i, mean in enumerate(means) if len(mean) > 1}
    base_start = starts[0][0] if 0 in starts else -math.inf
    base_level = -math.inf if target is None else perplexity(target)
    grown = {i for i, outcome in enumerate(outcomes) if outcome.method not in ORIGINALS}
    below_base = tuple(i for i, (mean, _) in starts.items() if i in grown and mean < base_start * (1 - ROUNDING))
    return Statistics(
        comparison=comparison,
        rows=rows,
        differences=tuple(differences(this, base, control, rival) for this, control, rival in held),
        labels=tuple(this.label for this in measured),
        is_trained=any(point.tokens > 0 for outcome in outcomes for curve in outcome.curves for point in curve),
        base_loss=target,
        starts=tuple(
            Start(i, mean, sd, min(outcomes[i].initial), max(outcomes[i].initial))
            for i, (mean, sd) in sorted(starts.items(), key=lambda item: (round(item[1][0], 4), item[0]))
        ),
        lowest_start=lowest({i: start for i, start in starts.items() if i in grown}),
        below_base=below_base,
        lowest_end=lowest(ends),
        at_base=tuple(i for i, (mean, _) in ends.items() if i in grown and mean <= base_level * (1 + ROUNDING)),
        from_base=tuple(i for i in sorted(grown) if rows[i].tokens_to_base == 0 and i not in below_base),
        at_trained_base=where(rows, "over_trained_base", 1 + ROUNDING, grown),
        at_trained_base_flops=where(rows, "over_trained_base_flops", 1 + ROUNDING, grown),
        below_control=where(rows, "over_control", 1 - ROUNDING, grown),
        frontier=frontier(rows),
        forgetting=find_forgetting(outcomes, curves, target),
        curves=curves,
        loss_range=loss_range({i: [point.loss for point in curve] for i, curve in curves.items()}, target),
        spent=most_spent(means),
        tasks=task_tables(outcomes),
    )


def where(rows: Sequence[Row], ratio: str, most: float, among: Collection[int]) -> tuple[int, ...]:
    """Those among the rows of which a ratio is known and at most so large."""
    return tuple(i for i in sorted(among) if (value := getattr(rows[i], ratio)) is not None and value <= most)


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


def frontier(rows: Sequence[Row]) -> tuple[int, ...]:
    """The rows that no other beats in what is learned and in what is retained; rounding is no difference."""
    ends = {i: (r.perplexity, r.retained) for i, r in enumerate(rows) if r.perplexity is not None and r.retained}

    def beaten(end: tuple[float, ...]) -> bool:
        return any(all(b < a * (1 - ROUNDING) for a, b in zip(end, other, strict=True)) for other in ends.values())

    return tuple(i for i, end in ends.items() if not beaten(end))


def most_spent(curves: Sequence[MeanCurve]) -> Spent:
    """The largest tokens, flops and seconds of any point, of those that are known."""
    points = [Spent(point.tokens, point.flops, point.seconds) for curve in curves for point in curve]
    if not points:
        return Spent(1.0, 1.0, 1.0)
    return Spent(*(float(max(filter(math.isfinite, values), default=0.0)) for values in zip(*points, strict=True)))
