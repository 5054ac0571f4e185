"""Rows of a fixed length from documents of any length.

pretrain: the documents, one after the other, are cut every T tokens. A row is T inputs and, shifted by one, their T
  targets, so the last target of a row is the first input of the next and no prediction is lost.
sft: a row takes conversations in their order while the next one fits whole (next fit).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int

from lesa_jax.base.digests import digest
from lesa_jax.data.store import TokenStore


@dataclass(frozen=True)
class PackedRows:
    """Rows that are made when asked for: `rows[i]`, `len(rows)`.

    Row i is the tokens [starts[i], stops[i]) of the store: all but the last are inputs, all but the first are targets.
    In one pass over all rows every token that has a predecessor in its document (for sft: and is the assistant's) is a
    target of weight 1 exactly once; no row is without one.
    """

    store: TokenStore
    sequence_length: int
    starts: Int[np.ndarray, " rows"]
    stops: Int[np.ndarray, " rows"]

    @property
    def digest(self) -> str:
        """Of all rows in their order."""
        return digest([self.store.digest, self.sequence_length])

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: SupportsIndex) -> Mapping[str, np.ndarray]:
        """One row, each array of shape [T], padded with zeros.

        Returns:
          tokens: int32 inputs.
          targets: int32, the token after each.
          segment_ids: int32, 1.. for the documents of the row in their order, 0 for padding.
          positions: int32, from 0 in each document, also in one that began in an earlier row.
          weights: float32, 1 where the target is in its input's document and is to be learned, else 0.

        Raises IndexError beyond the rows.
        """
        start, stop = int(self.starts[index]), int(self.stops[index])
        offsets = self.store.offsets
        first = int(np.searchsorted(offsets, start, side="right")) - 1
        last = int(np.searchsorted(offsets, stop, side="left"))
        bounds = np.asarray(offsets[first : last + 1])  # the documents that the row touches
        places = np.arange(start, stop)
        documents = np.searchsorted(bounds, places, side="right") - 1
        ids = np.asarray(self.store.tokens[start:stop], np.int32)
        learned = documents[1:] == documents[:-1]
        if self.store.mask is not None:
            learned = learned & (self.store.mask[start + 1 : stop] == 1)
        return {
            "tokens": self._padded(ids[:-1], np.int32),
            "targets": self._padded(ids[1:], np.int32),
            "segment_ids": self._padded(documents[:-1] + 1, np.int32),
            "positions": self._padded((places - np.maximum(bounds[documents], start))[:-1], np.int32),
            "weights": self._padded(learned, np.float32),
        }

    def _padded(self, values: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
        row = np.zeros(self.sequence_length, dtype)
        row[: len(values)] = values
        return row


def pack_rows(store: TokenStore, sequence_length: int) -> PackedRows:
    """The rows of `sequence_length` tokens of a store: whole conversations if it has a mask, else cut documents.

    Raises ValueError for a conversation of more than `sequence_length` + 1 tokens, or a length below 1.
    """
    if sequence_length < 1:
        raise ValueError(f"sequence length {sequence_length}: expected at least 1")
    if store.mask is not None:
        starts, stops = _next_fit(np.asarray(store.offsets), sequence_length + 1)
        return PackedRows(store, sequence_length, starts, stops)
    total = int(store.offsets[-1])
    starts = np.arange(0, total - 1, sequence_length)
    stops = np.minimum(starts + sequence_length + 1, total)
    # A pair of tokens is in row (place of the first) // T; those that straddle two documents are not learned.
    straddling = np.bincount((store.offsets[1:-1] - 1) // sequence_length, minlength=len(starts))
    learned = straddling < stops - starts - 1
    return PackedRows(store, sequence_length, starts[learned], stops[learned])


def _next_fit(offsets: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ranges of rows that hold whole documents."""
    longest = int(np.diff(offsets).max())
    if longest > room:
        raise ValueError(f"a conversation of {longest} tokens does not fit into {room}")
    edges = [0]
    while edges[-1] < len(offsets) - 1:
        edges.append(int(np.searchsorted(offsets, offsets[edges[-1]] + room, side="right")) - 1)
    places = offsets[edges]
    return places[:-1], places[1:]
