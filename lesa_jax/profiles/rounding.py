"""How a wished width becomes a multiple of what it must be divisible by: the rules of both public codes.

They differ only where rounding down loses exactly a tenth: 640 in multiples of 192 is 576 by the one, 768 by the other.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from lesa_jax.families.openelm import round_openelm

Rounding = Literal["openelm", "olmo"]


def round_olmo(width: float, divisor: int) -> int:
    """The same, but with the next multiple already where the nearest is 0.9 of `width`.

    Source: baroian/OLMo-custom, olmo_core/nn/transformer/model.py, the code of arXiv 2509.06518.
    """
    if width < divisor:
        return divisor
    rounded = int(width + divisor / 2) // divisor * divisor
    return rounded + divisor if rounded <= 0.9 * width else rounded


ROUNDINGS: Mapping[Rounding, Callable[[float, int], int]] = {"openelm": round_openelm, "olmo": round_olmo}
