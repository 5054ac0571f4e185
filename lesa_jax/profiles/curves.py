"""A multiplier for every layer from one, two or three points."""

from collections.abc import Sequence

import numpy as np

FEWEST_LAYERS = {1: 1, 2: 2, 3: 3}  # that so many points can be spread over


def curve(points: Sequence[float], layers: int) -> tuple[float, ...]:
    """Multipliers of the hidden size over depth, [layers].

    One point is every layer's. Two are the first and the last layer's, linear between, to two decimals. Three are the
    first, the middle and the last layer's, linear between and not rounded; of an even number of layers the middle is
    two layers.

    Source: two points, apple/corenet, general_gpt.py (OpenELM, arXiv 2404.14619); three, baroian/OLMo-custom, model.py
    (arXiv 2509.06518). Two things are other than there, and the same in all published profiles: its even case has the
    first point at both ends, here the last one stays what it is; and what falls here mirrors what rises to the last
    bit, or else a width halfway between two multiples becomes one of them on the way up and the other on the way down.

    Args:
      points: one to three.
      layers: at least as many as points.
    """
    match tuple(points):
        case (point,):
            return (point,) * layers
        case (first, last) if first > last:
            return curve((last, first), layers)[::-1]
        case (first, last):
            # numpy's rounding as in the public codes: Python's own differs where two decimals are equally near.
            return tuple(np.linspace(first, last, layers).round(2).tolist())
        case (first, middle, last):
            centre = [layers // 2 - 1, layers // 2] if layers % 2 == 0 else [layers // 2]
            places, values = [0, *centre, layers - 1], [first, *[middle] * len(centre), last]
            found = np.interp(range(layers), places, values).tolist()
            return tuple(found[: centre[-1]] + found[layers - centre[-1] - 1 :: -1] if first == last else found)
        case _:
            raise ValueError(f"a curve goes through one to three points, got {len(points)}")
