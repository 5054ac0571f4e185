"""The runs of the sweep over depths."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

SCRATCH, ON, NEW, ALL = "from nothing", "base trained on", "grown, new layers", "grown, all layers"
GROWN = (ON, NEW, ALL)


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
      way: from nothing, or what is made of a base.
      base: layers of the base; 0 from nothing.
      layers: that are run.
      tokens: that it is trained on; from nothing, or further ones.
      rate, seed: of the run; a base is the run from nothing with this seed and its best rate.
    """

    way: str
    base: int
    layers: int
    tokens: int
    rate: float
    seed: int

    @property
    def slug(self) -> str:
        return f"{self.way.replace(',', '').replace(' ', '-')}-{self.layers}-{self.tokens}-{self.rate:g}-{self.seed}"


@dataclass(frozen=True)
class Row(Run):
    """A finished run: parameters, operations of its own, and held-out loss at its end in nats."""

    parameters: int
    flops: float
    loss: float


def best(rows: Iterable[Row]) -> list[Row]:
    """Of rows that differ in seed and rate, those of the rate whose mean loss is lowest."""
    by_rate: dict[float, list[Row]] = {}
    for row in rows:
        by_rate.setdefault(row.rate, []).append(row)
    return min(by_rate.values(), key=lambda own: np.mean([row.loss for row in own]))
