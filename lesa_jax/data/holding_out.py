"""Rows of training data that are held out of it, to measure on what is not trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import SupportsIndex, TypeAlias

import numpy as np
from jaxtyping import Int

from lesa_jax.base.digests import digest
from lesa_jax.data.corruption import CorruptedRows
from lesa_jax.data.packing import PackedRows
from lesa_jax.data.pairs import PairRows
from lesa_jax.data.store import TokenStore

AllRows: TypeAlias = PackedRows | PairRows | CorruptedRows

SCARCE = 50  # rows of the data for each that is held out: more than that of them would be missed


@dataclass(frozen=True)
class RemainingRows:
    """All rows but those of the numbers `held_out`, which ascend: `rows[i]`, `len(rows)`."""

    rows: "AllRows | RemainingRows"
    held_out: Int[np.ndarray, " held"]

    @property
    def store(self) -> TokenStore:
        """Of all rows."""
        return self.rows.store

    @property
    def digest(self) -> str:
        """Of the rows that remain, in their order."""
        return digest([self.rows.digest, self.held_out.tolist()])

    def __len__(self) -> int:
        return len(self.rows) - len(self.held_out)

    def __getitem__(self, index: SupportsIndex) -> Mapping[str, np.ndarray]:
        remaining_before = self.held_out - np.arange(len(self.held_out))
        return self.rows[int(index) + int(np.searchsorted(remaining_before, int(index), side="right"))]


def numbers_to_hold_out(rows: int, most: int) -> Int[np.ndarray, " held"]:
    """At most so many of the numbers below `rows`, and at most one in `SCARCE`, each from the middle of an equal share:
    texts of many kinds lie one after the other, so the last rows would be of one of them."""
    count = min(most, rows // SCARCE)
    return (2 * np.arange(count) + 1) * rows // max(2 * count, 1)
