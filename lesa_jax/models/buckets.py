"""Rows of tokens as arrays of few shapes: for every shape a program is compiled."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

SHORTEST_BUCKET = 32


def bucket_of(length: int) -> int:
    """The next power of two: few programs are compiled, and at most half of a batch is padding."""
    return max(SHORTEST_BUCKET, 1 << (length - 1).bit_length())


def by_shape(shapes: Sequence[Any], size: int) -> Iterator[list[int]]:
    """The numbers of those that share a shape, at most `size` at a time, the largest first: what is too much for the
    memory shows at once, and the time left is not underrated."""
    groups: dict[Any, list[int]] = {}
    for number, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(number)
    for _, members in sorted(groups.items(), reverse=True):
        yield from (members[start : start + size] for start in range(0, len(members), size))


def padded(
    rows: Sequence[Sequence[int] | Int[np.ndarray, " _"]], size: int, length: int | None = None
) -> tuple[Int[np.ndarray, "size longest"], Bool[np.ndarray, "size longest"]]:
    """`size` rows as long as their bucket, or of a given length, padded on the right, and which of their tokens are no
    padding."""
    tokens = np.zeros((size, bucket_of(max(map(len, rows))) if length is None else length), np.int32)
    counted = np.zeros(tokens.shape, bool)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
        counted[number, : len(row)] = True
    return tokens, counted
