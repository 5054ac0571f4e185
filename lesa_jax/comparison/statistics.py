"""What the numbers of a comparison come to: computed once, from which all files of the report are made."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lesa_jax.base.units import finite
from lesa_jax.comparison.curves import (
    ROUNDING,
    MeanCurve,
    Spent,
    crossing,
    mean_curve,
    perplexity,
    shared_points,
    spread,
)
from lesa_jax.comparison.result import Comparison, Outcome


@dataclass(frozen=True)
class Row:
    """A row of table.json, in its order; every number is finite, and what was not measured is None.

    Attributes:
      initial_perplexity, initial_sd: mean and sample standard deviation over seeds, before training.
      initial_over_base: initial perplexity divided by base's.
      tokens: trained until the last evaluation that all seeds have.
      perplexity, perplexity_sd: exp(loss per token) there.
      tokens_to_base, flops_to_base, seconds_to_base: spent until the mean loss is base's before training.
      step_flops: operations per trained token.
      step_cost_over_base: step_flops divided by base's; left out of table.json where base was not trained.
      seeds: that were trained, or else measured.
      error: all that is wrong with the row.
    """

    method: str
    placement: str
    layers: int
    new_layers: tuple[int, ...]
    parameters: int
    new_parameters: int
    initial_perplexity: float | None
    initial_sd: float | None
    initial_over_base: float | None
    tokens: int | None
    perplexity: float | None
    perplexity_sd: float | None
    tokens_to_base: float | None
    flops_to_base: float | int | None
    seconds_to_base: float | int | None
    step_flops: float | int | None
    step_cost_over_base: float | None
    backward_depth: int | None
    seeds: int
    error: str | None


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
    curves: Mapping[int, MeanCurve]
    loss_range: LossRange
    spent: Spent


def summarise(comparison: Comparison) -> Statistics:
    """All statistics of a comparison, whose first outcome is base."""
    outcomes = comparison.outcomes
    means = [mean_curve(outcome.curves) for outcome in outcomes]
    target = base_loss(comparison, means[0])
    rows = tuple(row(outcome, mean, outcomes[0], target) for outcome, mean in zip(outcomes, means, strict=True))
    starts = {i: (r.initial_perplexity, r.initial_sd) for i, r in enumerate(rows) if r.initial_perplexity is not None}
    ends = {i: (r.perplexity, r.perplexity_sd) for i, r in enumerate(rows) if r.perplexity is not None}
    curves = {i: mean for i, mean in enumerate(means) if len(mean) > 1}
    base_start = starts[0][0] if 0 in starts else -math.inf
    base_level = -math.inf if target is None else perplexity(target)
    return Statistics(
        comparison=comparison,
        rows=rows,
        labels=labels(outcomes),
        is_trained=any(point.tokens > 0 for outcome in outcomes for curve in outcome.curves for point in curve),
        base_loss=target,
        starts=tuple(
            Start(i, mean, sd, min(outcomes[i].initial), max(outcomes[i].initial))
            for i, (mean, sd) in sorted(starts.items(), key=lambda item: (round(item[1][0], 4), item[0]))
        ),
        lowest_start=lowest({i: start for i, start in starts.items() if i}),
        below_base=tuple(i for i, (mean, _) in starts.items() if i and mean < base_start * (1 - ROUNDING)),
        lowest_end=lowest(ends),
        at_base=tuple(i for i, (mean, _) in ends.items() if i and mean <= base_level * (1 + ROUNDING)),
        curves=curves,
        loss_range=loss_range(curves, target),
        spent=most_spent(means),
    )


def row(outcome: Outcome, mean: MeanCurve, base: Outcome, target: float | None) -> Row:
    """One row of table.json.

    Args:
      outcome: what was measured.
      mean: the mean of its curves.
      base: the outcome of the original model.
      target: base's loss before training, in nats, if it is known.
    """
    start, start_sd = spread(outcome.initial)
    base_start, _ = spread(base.initial)
    ends = shared_points(outcome.curves)[-1:]
    last = [point for point in ends[0] if point.tokens > 0] if ends else []
    end, end_sd = spread([perplexity(point.loss) for point in last])
    reached = crossing(mean, target) if last else None
    step, base_step = finite(outcome.step_flops), finite(base.step_flops)
    errors = [outcome.error] if outcome.error else []
    if outcome.initial and start is None:
        errors.append("the perplexity before training is not finite")
    if last and end is None:
        errors.append(f"the loss after {last[0].tokens} tokens is not finite")
    return Row(
        method=outcome.method,
        placement=outcome.placement,
        layers=outcome.layers,
        new_layers=outcome.new_layers,
        parameters=outcome.parameters,
        new_parameters=outcome.new_parameters,
        initial_perplexity=start,
        initial_sd=start_sd,
        initial_over_base=start / base_start if start is not None and base_start else None,
        tokens=last[0].tokens if last else None,
        perplexity=end,
        perplexity_sd=end_sd,
        tokens_to_base=reached.tokens if reached else None,
        flops_to_base=finite(reached.flops) if reached else None,
        seconds_to_base=finite(reached.seconds) if reached else None,
        step_flops=step,
        step_cost_over_base=step / base_step if step is not None and base_step else None,
        backward_depth=outcome.backward_depth,
        seeds=len(last) or len(outcome.initial),
        error="; ".join(errors) or None,
    )


def base_loss(comparison: Comparison, mean: MeanCurve) -> float | None:
    """Base's loss in nats before training: measured with its curves, or of its perplexity; None if unknown."""
    if mean and mean[0].tokens == 0:
        return mean[0].loss
    start, _ = spread(comparison.outcomes[0].initial)
    # A mean of lines' perplexities is not the exponential of a loss per token.
    return math.log(start) if start and not comparison.protocol.startswith("line") else None


def labels(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """A name for each outcome: the method; with placement, then layers too, where that is there twice."""
    forms = [
        (o.method, f"{o.method} ({o.placement})", f"{o.method} ({o.placement}, {o.layers} layers)") for o in outcomes
    ]
    counts = [Counter(names) for names in zip(*forms, strict=True)]
    return tuple(
        next((name for name, count in zip(names, counts, strict=True) if count[name] == 1), names[-1])
        for names in forms
    )


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
