"""Pairs of texts for encoder-decoders: what is read, and what is to be written; packed into rows of both.

On the disk a pair is one document (`store`), whose tokens of the mask 1 are the target. A row takes pairs in their
order while the next one fits whole into source and target (next fit).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int

from lesa_jax.base.digests import digest
from lesa_jax.base.errors import InputError
from lesa_jax.data.sources import Record, field_names
from lesa_jax.data.store import TokenStore


@dataclass(frozen=True)
class Pair:
    """Token ids, int32, with all special tokens but the one that a decoder begins with."""

    source: Int[np.ndarray, " source"]
    target: Int[np.ndarray, " target"]


def texts_of(record: Record) -> tuple[str, str]:
    """The two texts of a record. Raises InputError where it has them not, or an empty target."""
    source, target = (record.fields.get(name) for name in ("input", "target"))
    if not isinstance(source, str) or not isinstance(target, str):
        raise InputError(
            f'{record.place}: expected "input" and "target", both strings; there is {field_names(record)}: rename the '
            "fields"
        )
    return source, target


def packed_pair(
    pairs: Sequence[Pair], source_length: int, target_length: int, start_token: int
) -> Mapping[str, np.ndarray]:
    """One row, its arrays padded with zeros to [source_length] and [target_length].

    Returns:
      source_tokens, source_segment_ids (1.. for the pairs in their order, 0 for padding), source_positions (from 0 in
      each); tokens, what the decoder reads: `start_token`, then the target but for its last token; targets, the token
      after each; segment_ids and positions of these; weights, float32, 1 but for padding.
    """

    def row(parts: Sequence[np.ndarray], length: int) -> np.ndarray:
        whole = np.concatenate(parts)
        return np.pad(whole, (0, length - len(whole))).astype(np.int32)

    sources, targets = [pair.source for pair in pairs], [pair.target for pair in pairs]
    read = [np.concatenate([[start_token], target[:-1]]) for target in targets]
    found: dict[str, np.ndarray] = {}
    for prefix, parts, length in (("source_", sources, source_length), ("", read, target_length)):
        found[f"{prefix}tokens"] = row(parts, length)
        found[f"{prefix}segment_ids"] = row([np.full(len(x), number) for number, x in enumerate(parts, 1)], length)
        found[f"{prefix}positions"] = row([np.arange(len(x)) for x in parts], length)
    found["targets"] = row(targets, target_length)
    return found | {"weights": (found["segment_ids"] > 0).astype(np.float32)}


@dataclass(frozen=True)
class PairRows:
    """Rows that are made when asked for: `rows[i]`, `len(rows)`; row i has the pairs [edges[i], edges[i + 1])."""

    store: TokenStore
    source_length: int
    target_length: int
    start_token: int
    edges: Int[np.ndarray, " rows_and_1"]

    @property
    def digest(self) -> str:
        """Of all rows in their order."""
        return digest([self.store.digest, self.source_length, self.target_length, self.start_token])

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __getitem__(self, index: SupportsIndex) -> Mapping[str, np.ndarray]:
        first, stop = int(self.edges[index]), int(self.edges[int(index) + 1])
        pairs = [self._pair(number) for number in range(first, stop)]
        return packed_pair(pairs, self.source_length, self.target_length, self.start_token)

    def _pair(self, number: int) -> Pair:
        assert self.store.mask is not None
        place = slice(int(self.store.offsets[number]), int(self.store.offsets[number + 1]))
        tokens, written = np.asarray(self.store.tokens[place], np.int32), np.asarray(self.store.mask[place]) == 1
        return Pair(tokens[~written], tokens[written])


def pack_pairs(store: TokenStore, source_length: int, target_length: int, start_token: int) -> PairRows:
    """The rows of a store of pairs, none of which has a text that is longer than a row has room for."""
    assert store.mask is not None
    offsets = np.asarray(store.offsets)
    targets = np.add.reduceat(np.asarray(store.mask, np.int64), offsets[:-1])
    sources = np.diff(offsets) - targets
    edges, used = [0], np.zeros(2, np.int64)
    for number, lengths in enumerate(np.stack([sources, targets], axis=1)):
        used = used + lengths
        if np.any(used > (source_length, target_length)):
            edges.append(number)
            used = lengths
    return PairRows(store, source_length, target_length, start_token, np.array([*edges, len(sources)]))
