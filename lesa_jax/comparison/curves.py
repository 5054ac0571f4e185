"""Curves of several seeds: their mean, and what is spent until it reaches a loss."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Literal, NamedTuple

from lesa_jax.comparison.result import Point

# Two measurements of one model differ by this much because sums are rounded; of losses in nats, and relative ones of
# perplexities.
ROUNDING = 1e-5


@dataclass(frozen=True)
class MeanPoint(Point):
    """Means over seeds of one evaluation; `sd` is the standard deviation of the loss in nats, 0 for one seed."""

    sd: float = 0.0


MeanCurve = tuple[MeanPoint, ...]


class Spent(NamedTuple):
    """What training has cost up to a point."""

    tokens: float
    flops: float
    seconds: float


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
    """Means over seeds, as far as all losses are finite."""
    means = []
    for points in shared_points(curves):
        loss, sd = spread([point.loss for point in points])
        if loss is None:
            break
        flops, seconds = (statistics.fmean(getattr(p, name) for p in points) for name in ("flops", "seconds"))
        kept = [point.retained for point in points if point.retained is not None]
        retained = spread(kept)[0] if len(kept) == len(points) else None
        means.append(MeanPoint(points[0].tokens, flops, seconds, loss, retained, sd or 0.0))
    return tuple(means)


class Values(NamedTuple):
    """Losses on both texts where something was spent; None where they are not known."""

    loss: float | None
    retained: float | None
    flops: float


def values_at(curve: MeanCurve, axis: Literal["tokens", "flops"], spent: float | int) -> Values:
    """The losses where so much was spent, linear between evaluations; none where the curve does not reach."""
    for before, after in pairwise(curve):
        start, end = getattr(before, axis), getattr(after, axis)
        if start <= spent <= end and end > start:
            part = (spent - start) / (end - start)
            retained = None
            if before.retained is not None and after.retained is not None:
                retained = before.retained + part * (after.retained - before.retained)
            flops = before.flops + part * (after.flops - before.flops)
            return Values(before.loss + part * (after.loss - before.loss), retained, flops)
    return Values(None, None, math.nan)


def loss_at(curve: MeanCurve, axis: Literal["tokens", "flops"], spent: float | int) -> float | None:
    """The loss where so much was spent, linear between evaluations; None where the curve does not reach."""
    return values_at(curve, axis, spent).loss


def crossing(curve: MeanCurve, target: float | None) -> Spent | None:
    """Where the curve first is at the target or below, linear in loss between evaluations; None if it never is."""
    if target is None or not curve:
        return None
    before = curve[0]
    if before.loss <= target + ROUNDING:
        return Spent(float(before.tokens), before.flops, before.seconds)
    for after in curve[1:]:
        if after.loss <= target:
            part = (before.loss - target) / (before.loss - after.loss)
            start, end = (Spent(point.tokens, point.flops, point.seconds) for point in (before, after))
            return Spent(*(a + part * (b - a) for a, b in zip(start, end, strict=True)))
        before = after
    return None
