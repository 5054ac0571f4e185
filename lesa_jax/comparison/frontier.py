"""What methods learn against what they forget: a curve for each over learning rates and shares of replay.

Only trainings that cost the same are on one frontier. A method's curve goes through those of its trainings that none of
its others beats; between two of them it is linear, as if a share of replay between theirs were tried.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from lesa_jax.comparison.curves import ROUNDING, MeanCurve, values_at
from lesa_jax.comparison.ranges import LossRange, loss_range
from lesa_jax.comparison.result import Outcome
from lesa_jax.comparison.rows import labels

WHOLE, OPERATIONS, SHORT = "ends of whole runs", "at equal operations", "ends of short runs"


class Spot(NamedTuple):
    """Where one training has come.

    Attributes:
      position: of its outcome.
      learned, retained: losses on the new text and on what was known, nats per token.
      flops: spent until then; NaN if unknown.
      rate: at its peak; None if unknown.
      replay: share of old text; None where all rows have the same.
    """

    position: int
    learned: float
    retained: float
    flops: float
    rate: float | None
    replay: float | None

    @property
    def label(self) -> str:
        """What sets it apart from others of its method."""
        rate = "" if self.rate is None else f"{self.rate:g}"
        share = "" if self.replay is None else f"{100 * self.replay:g} % replay"
        return ", ".join(filter(None, [rate, share]))


class Equal(NamedTuple):
    """The most that a method learns where it forgets no more than base.

    Attributes:
      method: its name.
      learned: loss on the new text, nats per token.
      flops: spent on it; NaN if unknown.
      spots: where it is on the method's curve: at one, or between two.
    """

    method: str
    learned: float
    flops: float
    spots: tuple[Spot, ...]


class Frontier(NamedTuple):
    """Trainings that cost the same.

    Attributes:
      title: what they are.
      methods: their spots by method, lowest loss on the new text first.
      curves: of these, the ones that a method's curve goes through (`unbeaten`).
      best: those than which no other has both learned more and forgotten less.
      base: that of base, trained as a whole: the first one named; None without one.
      equals: what each method learns at most where it forgets no more than base, the best one first; a method that
        forgets more in every training is none of them.
      learned, retained: what is shown of both losses.
    """

    title: str
    methods: Mapping[str, tuple[Spot, ...]]
    curves: Mapping[str, tuple[Spot, ...]]
    best: tuple[Spot, ...]
    base: Spot | None
    equals: tuple[Equal, ...]
    learned: LossRange
    retained: LossRange

    @property
    def has_curves(self) -> bool:
        """Whether there is more than a point to any method."""
        return any(len(spots) > 1 for spots in self.methods.values())

    def look(self, method: str) -> int:
        """The position whose look a method's curve has: that of its first outcome."""
        return min(one.position for one in self.methods[method])


def find_frontiers(outcomes: Sequence[Outcome], curves: Mapping[int, MeanCurve]) -> tuple[Frontier, ...]:
    """Those of a comparison: of whole runs at equal tokens and at equal operations, and of short runs.

    Args:
      outcomes: the rows, base first.
      curves: means over seeds, by outcome.
    """
    longest = max((curve[-1].tokens for curve in curves.values()), default=0)
    ends = {i: curve for i, curve in curves.items() if curve[-1].tokens == longest}
    known = {i: curve for i, curve in ends.items() if math.isfinite(curve[-1].flops)}
    least = min((curve[-1].flops for curve in known.values()), default=0.0)
    found = {
        WHOLE: [spot(outcomes, i, *values_at(curve, "tokens", curve[-1].tokens)) for i, curve in ends.items()],
        OPERATIONS: [spot(outcomes, i, *values_at(curve, "flops", least)) for i, curve in known.items()],
        SHORT: short_spots(outcomes),
    }
    names = methods(outcomes)
    return tuple(frontier(title, sound, names) for title, spots in found.items() if (sound := [*filter(None, spots)]))


def spot(
    outcomes: Sequence[Outcome], position: int, learned: float | None, retained: float | None, flops: float
) -> Spot | None:
    """Of a whole run; None where a loss is not known."""
    outcome = outcomes[position]
    if learned is None or retained is None:
        return None
    return Spot(position, learned, retained, flops, outcome.learning_rate, outcome.replay)


def short_spots(outcomes: Sequence[Outcome]) -> list[Spot]:
    """Of all short runs that ended, base's chosen one first of all."""
    spots = [
        Spot(i, run.loss, run.retained, run.tokens * (run.step_flops or math.nan), run.learning_rate, outcome.replay)
        for i, outcome in enumerate(outcomes)
        for run in outcome.sweep
        if run.loss is not None and run.retained is not None
    ]
    return sorted(spots, key=lambda spot: (spot.position, spot.rate != outcomes[spot.position].learning_rate))


def frontier(title: str, spots: Sequence[Spot], names: Sequence[str]) -> Frontier:
    """Of spots, of which base's first one is what others are held against; `names` are of methods, by outcome."""
    by_method: dict[str, list[Spot]] = {}
    for one in spots:
        by_method.setdefault(names[one.position], []).append(one)
    curves = {name: unbeaten(some) for name, some in by_method.items()}
    base = next((one for one in spots if one.position == 0), None)
    equals = () if base is None else (at_most(name, curve, base.retained) for name, curve in curves.items())
    return Frontier(
        title=title,
        methods={name: in_order(some) for name, some in by_method.items()},
        curves=curves,
        best=unbeaten(spots),
        base=base,
        equals=tuple(sorted((one for one in equals if one is not None), key=lambda one: one.learned)),
        learned=loss_range({i: (one.learned,) for i, one in enumerate(spots)}, None),
        retained=loss_range({i: (one.retained,) for i, one in enumerate(spots)}, None),
    )


def methods(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """The name of each outcome's method, which those that differ by their share of replay have in common."""
    keys: list[Hashable] = []
    plain: dict[Hashable, Outcome] = {}
    for outcome in outcomes:
        one = replace(outcome, replay=None)
        keys.append((one.title, one.placement, one.layers))
        plain.setdefault(keys[-1], one)
    names = dict(zip(plain, labels([*plain.values()]), strict=True))
    return tuple(names[key] for key in keys)


def in_order(spots: Iterable[Spot]) -> tuple[Spot, ...]:
    return tuple(sorted(spots, key=lambda one: (one.learned, one.retained)))


def unbeaten(spots: Sequence[Spot]) -> tuple[Spot, ...]:
    """Those than which no other has both learned more and forgotten less, in order; rounding is no difference."""

    def beaten(one: Spot) -> bool:
        return any(
            other.learned < one.learned - ROUNDING and other.retained < one.retained - ROUNDING for other in spots
        )

    return in_order(one for one in spots if not beaten(one))


def at_most(method: str, curve: Sequence[Spot], retained: float) -> Equal | None:
    """Where a curve, lowest loss on the new text first, has at most so much loss on what was known."""
    here = next((i for i, one in enumerate(curve) if one.retained <= retained + ROUNDING), None)
    if here is None:
        return None
    one, before = curve[here], curve[here - 1] if here else None
    part = 0.0 if before is None else (retained - one.retained) / (before.retained - one.retained)
    if before is None or part <= 0:
        return Equal(method, one.learned, one.flops, (one,))
    learned, flops = (a + part * (b - a) for a, b in ((one.learned, before.learned), (one.flops, before.flops)))
    return Equal(method, learned, flops, (before, one))
