"""How a wished width becomes a multiple of what it must be divisible by: the rules of both public codes.

They differ only where rounding down loses exactly a tenth: 640 in multiples of 192 is 576 by the one, 768 by the other.
"""

from collections.abc import Callable, Mapping
from typing import Literal

Rounding = Literal["openelm", "olmo"]


def round_openelm(width: float, divisor: int) -> int:
    """The nearest multiple of `divisor`, or the next one where that is less than 0.9 of `width`; at least `divisor`.

    Source: apple/corenet, corenet/utils/math_utils.py (`make_divisible`); llama.cpp and mlx-lm read checkpoints by it.
    """
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


def round_olmo(width: float, divisor: int) -> int:
    """The same, but with the next multiple already where the nearest is 0.9 of `width`.

    Source: baroian/OLMo-custom, olmo_core/nn/transformer/model.py, the code of arXiv 2509.06518.
    """
    if width < divisor:
        return divisor
    rounded = int(width + divisor / 2) // divisor * divisor
    return rounded + divisor if rounded <= 0.9 * width else rounded


ROUNDINGS: Mapping[Rounding, Callable[[float, int], int]] = {"openelm": round_openelm, "olmo": round_olmo}
