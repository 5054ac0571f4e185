"""What is learned against what is forgotten: losses on the new text and on what the model knew before."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lesa_jax.comparison.curves import MeanCurve
from lesa_jax.comparison.frontier import Frontier, find_frontiers
from lesa_jax.comparison.ranges import LossRange, loss_range
from lesa_jax.comparison.result import Outcome


class Losses(NamedTuple):
    """A line: losses on the new text, and at the same places on what was known, nats per token."""

    learned: tuple[float, ...]
    retained: tuple[float, ...]


class Forgetting(NamedTuple):
    """Lines by the position of their outcome, where both losses are known.

    Attributes:
      training: along the mean curve of all seeds.
      frontiers: of trainings that cost the same, a curve for each method.
      base: base's loss on what was known, before training; None if unknown.
      learned, retained: what is shown of both losses along training.
    """

    training: Mapping[int, Losses]
    frontiers: tuple[Frontier, ...]
    base: float | None
    learned: LossRange
    retained: LossRange


def find_forgetting(outcomes: Sequence[Outcome], curves: Mapping[int, MeanCurve], target: float | None) -> Forgetting:
    """All lines of a comparison.

    Args:
      outcomes: the rows, base first.
      curves: means over seeds, by outcome.
      target: base's loss on the new text before training.
    """
    training = {i: line([(point.loss, point.retained) for point in curve]) for i, curve in curves.items()}
    training = {i: one for i, one in training.items() if len(one.learned) > 1}
    before = curves[0][0].retained if 0 in curves else None
    learned = loss_range({i: one.learned for i, one in training.items()}, target)
    retained = loss_range({i: one.retained for i, one in training.items()}, before)
    return Forgetting(training, find_frontiers(outcomes, curves) if training else (), before, learned, retained)


def line(points: Sequence[tuple[float | None, float | None]]) -> Losses:
    """The points of which both losses are numbers."""
    known = [(a, b) for a, b in points if a is not None and b is not None and math.isfinite(a) and math.isfinite(b)]
    return Losses(tuple(a for a, _ in known), tuple(b for _, b in known))
