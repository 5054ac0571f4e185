"""What of a picture's losses is shown: runs that go wild would leave no room for the others."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class LossRange(NamedTuple):
    """Ends of the loss axis in nats, and the outcomes whose curves begin or stay above it."""

    low: float
    high: float
    above: tuple[int, ...]


def loss_range(curves: Mapping[int, Sequence[float]], target: float | None) -> LossRange:
    """What is shown of mean curves, given by their losses, and of base's loss before training.

    Every end is shown, unless it is far above most, and so is every start that does not more than double the axis.
    """
    ends = [curve[-1] for curve in curves.values()] + ([] if target is None else [target])
    if not ends:
        return LossRange(0.0, 1.0, ())
    low = min([*ends, *(loss for curve in curves.values() for loss in curve)])
    far = low + max(1.0, 4 * (statistics.median(ends) - low))
    high = max(end for end in ends if end <= far)
    starts = [curve[0] for curve in curves.values()]
    reach = max(2 * high - low, high + 0.02)
    high = max([high, *(start for start in starts if start <= reach)])
    margin = 0.05 * (high - low) or 0.05
    above = tuple(i for i, curve in curves.items() if curve[0] > high + margin)
    return LossRange(low - margin, high + margin, above)
