"""By how much blocks of neighbouring layers turn the residual stream of each text's last token.

"The unreasonable ineffectiveness of the deeper layers" (Gromov et al., arXiv 2403.17887) drops the block of n layers
behind which that stream points most nearly where it did before it. Distances are angles over half a turn: 0 where the
block turns nothing, 0.5 at a right angle.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float


class Block(NamedTuple):
    """Of all blocks of `size` layers the one that turns the stream least; `first` is its lowest layer."""

    size: int
    first: int
    distance: float

    @property
    def last(self) -> int:
        return self.first + self.size - 1


def block_distances(
    streams: Float[np.ndarray | Array, "streams rows hidden"],
) -> tuple[Float[np.ndarray, " _"], ...]:
    """For every size from 1 on the distances of all blocks of that size, by their lowest layer; means over rows.

    In numpy, as JAX would compile a program for every size: 0.3 GB of them at 24 layers.

    Args:
      streams: each row's last token before every layer and behind the last one.
    """
    x = np.asarray(streams, np.float64)
    lengths = np.linalg.norm(x, axis=-1, keepdims=True)
    unit = x / np.where(lengths > 0, lengths, 1)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """As `evaluation.vectors.angles`, over half a turn."""
        return 2 / np.pi * np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1))

    return tuple(distance(unit[:-size], unit[size:]).mean(axis=1) for size in range(1, len(unit)))


def best_blocks(distances: Sequence[Float[np.ndarray, " _"]]) -> tuple[Block, ...]:
    """Of each size the block to drop, by Gromov's rule."""
    return tuple(Block(size, int(of_size.argmin()), float(of_size.min())) for size, of_size in enumerate(distances, 1))


def nearly_one(distances: Sequence[Float[np.ndarray, " _"]]) -> Block | None:
    """The longest block of several layers that together turn the stream by less than the median layer alone does."""
    usual = float(np.median(distances[0]))
    found = [block for block in best_blocks(distances) if block.size > 1 and block.distance < usual]
    return found[-1] if found else None
