"""Several data in fixed shares, as `--data new.jsonl:0.9,old.jsonl:0.1` names them: what is new, and replay of the old.

A share is of the rows, and so of the tokens: after any number of rows each part has had its share of them, to within a
row or two. A part that is smaller than its share of the run begins again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, cached_property
from typing import SupportsIndex, TypeAlias

import numpy as np

from lesa_jax.base.digests import digest
from lesa_jax.data.holding_out import AllRows, RemainingRows, numbers_to_hold_out

Rows: TypeAlias = AllRows | RemainingRows


@dataclass(frozen=True)
class Mixture:
    """Rows of several data, one after the other: `rows[i]`, `len(rows)`. Without shares it is one data.

    Attributes:
      parts: the rows of each.
      shares: of each; they need not add up to 1.
    """

    parts: tuple[Rows, ...]
    shares: tuple[float, ...]

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """Where each part begins, and the end of the last."""
        return (0, *np.cumsum([len(part) for part in self.parts]).tolist())

    @property
    def digest(self) -> str:
        """Of all rows and their shares."""
        digests = [part.digest for part in self.parts]
        return digests[0] if len(digests) == 1 else digest([digests, self.shares])

    def __len__(self) -> int:
        return self.bounds[-1]

    def __getitem__(self, index: SupportsIndex) -> Mapping[str, np.ndarray]:
        """See `PackedRows`."""
        number = int(index)
        part = int(np.searchsorted(self.bounds, number, side="right")) - 1
        return self.parts[part][number - self.bounds[part]]

    def hold_out(self, most: int) -> tuple["Mixture", Sequence[Mapping[str, np.ndarray]]]:
        """Without at most so many rows of the first part, which is what is new; and these rows."""
        first, *others = self.parts
        numbers = numbers_to_hold_out(len(first), most)
        if not len(numbers):
            return self, ()
        return replace(self, parts=(RemainingRows(first, numbers), *others)), tuple(first[int(n)] for n in numbers)


@cache
def fractions(shares: tuple[float, ...]) -> tuple[Fraction, ...]:
    """The shares as they were written: 0.1 is a tenth."""
    return tuple(Fraction(str(share)) for share in shares)


def turn(place: int, shares: Sequence[float]) -> tuple[int, int]:
    """Which part the row at a place of the mixture is from, and how many of that part came before; exact, in integers.

    The first part takes its turns as evenly as they go, the second one does so in the places that are left, and so on.
    """
    exact = fractions(tuple(shares))
    left = sum(exact)
    for part, share in enumerate(exact[:-1]):
        before, after = (share * rows // left for rows in (place, place + 1))
        if after > before:
            return part, before
        place -= before
        left -= share
    return len(exact) - 1, place
