"""What the numbers of a comparison come to: means over seeds, crossings, the axes that show them."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from lesa_jax.base.units import finite
from lesa_jax.comparison.result import Comparison, MeanCurve, Outcome, Point, Row
from lesa_jax.reports.charts import UNITS

# Two measurements of one model differ by this much because sums are rounded; of losses in nats, and relative ones of
# perplexities.
ROUNDING = 1e-5
LOG_RATIO = 10.0  # of the largest to the smallest perplexity; with more the axis is logarithmic


def rows(comparison: Comparison) -> list[Row]:
    """The rows of table.json, which all numbers of the other files are taken from; every number in them is finite."""
    target = base_loss(comparison)
    return [row(outcome, comparison.outcomes[0], target) for outcome in comparison.outcomes]


def row(outcome: Outcome, base: Outcome, target: float | None) -> Row:
    """One row of table.json.

    Args:
      outcome: what was measured.
      base: the outcome of the original model.
      target: base's loss before training, in nats, if it is known.
    """
    start, start_sd = spread(outcome.initial)
    base_start, _ = spread(base.initial)
    ends = shared_points(outcome.curves)[-1:]
    last = [point for point in ends[0] if point.tokens > 0] if ends else []
    perplexities = [perplexity(point.loss) for point in last]
    end, end_sd = spread(perplexities)
    reached = crossing(mean_curve(outcome.curves), target) if last else None
    errors = [outcome.error] if outcome.error else []
    if outcome.initial and start is None:
        errors.append("the perplexity before training is not finite")
    if last and end is None:
        errors.append(f"the loss after {last[0].tokens} tokens is not finite")
    result: Row = {
        "method": outcome.method,
        "placement": outcome.placement,
        "layers": outcome.layers,
        "new_layers": list(outcome.new_layers),
        "parameters": outcome.parameters,
        "new_parameters": outcome.new_parameters,
        "initial_perplexity": start,
        "initial_sd": start_sd,
        "initial_over_base": start / base_start if start is not None and base_start else None,
        "tokens": last[0].tokens if last else None,
        "perplexity": end,
        "perplexity_sd": end_sd,
        "tokens_to_base": reached.tokens if reached else None,
        "flops_to_base": finite(reached.flops) if reached else None,
        "seconds_to_base": finite(reached.seconds) if reached else None,
        "step_flops": finite(outcome.step_flops),
    }
    if base.step_flops:
        cost = outcome.step_flops
        result["step_cost_over_base"] = None if cost is None else finite(cost / base.step_flops)
    result["backward_depth"] = outcome.backward_depth
    result["seeds"] = len(last) or len(outcome.initial)
    result["error"] = "; ".join(errors) or None
    return result


def spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; None for what does not exist, or is not finite."""
    if not values or not all(map(math.isfinite, values)):
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def perplexity(loss: float) -> float:
    """exp(nats); infinity for a loss that is too large or not a number."""
    return math.exp(loss) if loss < 700.0 else math.inf


def shared_points(curves: Sequence[Sequence[Point]]) -> list[tuple[Point, ...]]:
    """For each evaluation that all seeds have at the same tokens, a point of each seed."""
    evaluations = zip(*(curve for curve in curves if curve), strict=False)
    return list(takewhile(lambda points: len({point.tokens for point in points}) == 1, evaluations))


def mean_curve(curves: Sequence[Sequence[Point]]) -> MeanCurve:
    """Means over seeds, as far as all losses are finite; the standard deviation is 0 for one seed."""
    means = []
    for points in shared_points(curves):
        loss, sd = spread([point.loss for point in points])
        if loss is None:
            break
        flops, seconds = (statistics.fmean(getattr(p, name) for p in points) for name in ("flops", "seconds"))
        means.append((Point(points[0].tokens, flops, seconds, loss), sd or 0.0))
    return tuple(means)


def base_loss(comparison: Comparison) -> float | None:
    """Base's loss in nats before training: measured with the curves, or of its perplexity; None if unknown."""
    base = comparison.outcomes[0]
    measured = mean_curve(base.curves)
    if measured and measured[0][0].tokens == 0:
        return measured[0][0].loss
    start, _ = spread(base.initial)
    # A mean of lines' perplexities is not the exponential of a loss per token.
    return math.log(start) if start and not comparison.protocol.startswith("line") else None


class Crossing(NamedTuple):
    """What was spent until a curve reached a loss, which may be between evaluations."""

    tokens: float
    flops: float
    seconds: float


def crossing(curve: MeanCurve, target: float | None) -> Crossing | None:
    """Where the curve first is at the target or below, linear in loss between evaluations; None if it never is."""
    if target is None or not curve:
        return None
    before = curve[0][0]
    if before.loss <= target + ROUNDING:
        return Crossing(float(before.tokens), before.flops, before.seconds)
    for after, _ in curve[1:]:
        if after.loss <= target:
            part = (before.loss - target) / (before.loss - after.loss)
            return Crossing(
                *(getattr(before, name) + part * (getattr(after, name) - getattr(before, name)) for name in UNITS)
            )
        before = after
    return None


def is_trained(comparison: Comparison) -> bool:
    return any(point.tokens > 0 for outcome in comparison.outcomes for curve in outcome.curves for point in curve)


def labels(comparison: Comparison) -> list[str]:
    """A name for each outcome: the method; with placement, then layers too, where that is there twice."""
    forms = [
        (o.method, f"{o.method} ({o.placement})", f"{o.method} ({o.placement}, {o.layers} layers)")
        for o in comparison.outcomes
    ]
    counts = [Counter(names) for names in zip(*forms, strict=True)]
    return [
        next((name for name, count in zip(names, counts, strict=True) if count[name] == 1), names[-1])
        for names in forms
    ]


def loss_range(comparison: Comparison) -> tuple[float, float, list[int]]:
    """Ends of the loss axis in nats, and the positions of the outcomes whose curves begin or stay above it.

    Every end is shown, unless it is far above most, and so is every start that does not more than double the axis.
    """
    curves = {i: curve for i, o in enumerate(comparison.outcomes) if len(curve := mean_curve(o.curves)) > 1}
    target = base_loss(comparison)
    ends = [curve[-1][0].loss for curve in curves.values()] + ([] if target is None else [target])
    if not ends:
        return 0.0, 1.0, []
    low = min([*ends, *(point.loss for curve in curves.values() for point, _ in curve)])
    far = low + max(1.0, 4 * (statistics.median(ends) - low))
    high = max(end for end in ends if end <= far)
    starts = [curve[0][0].loss for curve in curves.values()]
    reach = max(2 * high - low, high + 0.02)
    high = max([high, *(start for start in starts if start <= reach)])
    margin = 0.05 * (high - low) or 0.05
    above = [i for i, curve in curves.items() if curve[0][0].loss > high + margin]
    return low - margin, high + margin, above


def initial_points(comparison: Comparison) -> list[tuple[int, float]]:
    """Position and mean of each outcome that has a finite initial perplexity, the lowest first."""
    means = [(i, spread(outcome.initial)[0]) for i, outcome in enumerate(comparison.outcomes)]
    return sorted(((i, mean) for i, mean in means if mean is not None), key=lambda item: (round(item[1], 4), item[0]))


def is_logarithmic(values: Sequence[float]) -> bool:
    return bool(values) and max(values) > LOG_RATIO * min(values) > 0


def largest(comparison: Comparison, name: str) -> float:
    """End of an axis: the largest tokens, flops or seconds of any mean curve."""
    curves = (mean_curve(outcome.curves) for outcome in comparison.outcomes)
    return float(max((getattr(point, name) for curve in curves for point, _ in curve), default=1.0))
