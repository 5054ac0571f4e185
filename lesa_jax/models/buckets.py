"""Rows of tokens as arrays of few shapes: for every shape a program is compiled."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

SHORTEST_BUCKET = 32


def bucket_of(length: int) -> int:
    """The next power of two: few programs are compiled, and at most half of a batch is padding."""
    return max(SHORTEST_BUCKET, 1 << (length - 1).bit_length())


def padded(
    rows: Sequence[Sequence[int] | Int[np.ndarray, " _"]], size: int
) -> tuple[Int[np.ndarray, "size longest"], Bool[np.ndarray, "size longest"]]:
    """`size` rows as long as their bucket, padded on the right, and which of their tokens are no padding."""
    tokens = np.zeros((size, bucket_of(max(map(len, rows)))), np.int32)
    counted = np.zeros(tokens.shape, bool)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
        counted[number, : len(row)] = True
    return tokens, counted
