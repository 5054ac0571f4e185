"""Span corruption, what T5 learns from plain text (arXiv 1910.10683): 15 % of the tokens are taken out in spans of 3 on
average, each span is replaced by a sentinel, and the target has the spans, each behind its sentinel.

All texts are one row of tokens, cut into pieces of a length that fills a source, as T5 has it; what is taken out of
piece i is known from the seed and i. Its numbers are exact: of 568 tokens 85 are taken out in 28 spans, so that source
and target have 512 and 114 tokens, the end-of-text token that closes both included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Int, Integer

from lesa_jax.base.digests import digest
from lesa_jax.base.errors import InputError
from lesa_jax.data.pairs import Pair, packed_pair
from lesa_jax.data.store import TokenStore

DENSITY = 0.15
SPAN = 3.0


@dataclass(frozen=True)
class Corruption:
    """What span corruption needs to know of a model and its tokenizer.

    Attributes:
      sentinels: tokens that stand for a span, in the order in which they are used.
      end: the token that closes source and target.
      seed: of which tokens are taken out.
    """

    sentinels: tuple[int, ...]
    end: int
    seed: int = 0

    def lengths(self, source_length: int) -> tuple[int, int]:
        """Of the longest piece whose source fits into so many tokens, and of its target.

        Raises:
          InputError: there are too few sentinels for it, or room for nothing.
        """
        length = source_length
        while length > 1 and corrupted_lengths(length + 1)[0] <= source_length:
            length += 1
        while length > 1 and corrupted_lengths(length)[0] > source_length:
            length -= 1
        if length < 2:
            raise InputError(f"--sequence-length {source_length}: span corruption needs at least 3 tokens")
        spans = span_counts(length)[1]
        if spans > len(self.sentinels):
            raise InputError(
                f"--sequence-length {source_length}: takes out {spans} spans, but the tokenizer has "
                f"{len(self.sentinels)} sentinels (<extra_id_0>, ...); choose a smaller one"
            )
        return length, corrupted_lengths(length)[1]

    def corrupt(self, tokens: Integer[np.ndarray, " tokens"], number: int) -> Pair:
        """The piece of this number, as a source and a target."""
        rng = np.random.default_rng((self.seed, number))
        taken, spans = span_counts(len(tokens))
        # Kept and taken spans take turns, a kept one first.
        lengths = np.empty(2 * spans, np.int64)
        lengths[::2] = partition(len(tokens) - taken, spans, rng)
        lengths[1::2] = partition(taken, spans, rng)
        cut = np.split(np.asarray(tokens, np.int32), np.cumsum(lengths)[:-1])
        source, target = [], []
        for kept, out, sentinel in zip(cut[::2], cut[1::2], self.sentinels, strict=False):
            source += [kept, [sentinel]]
            target += [[sentinel], out]
        return Pair(*(np.concatenate([*parts, [self.end]]).astype(np.int32) for parts in (source, target)))


def span_counts(tokens: int) -> tuple[int, int]:
    """How many of at least two tokens are taken out, and in how many spans; at least one is kept in front of each."""
    taken = min(max(round(tokens * DENSITY), 1), tokens - 1)
    return taken, min(max(round(taken / SPAN), 1), tokens - taken)


def corrupted_lengths(tokens: int) -> tuple[int, int]:
    """Of source and target of a piece of so many tokens."""
    taken, spans = span_counts(tokens)
    return tokens - taken + spans + 1, taken + spans + 1


def partition(total: int, parts: int, rng: np.random.Generator) -> Int[np.ndarray, " parts"]:
    """Positive lengths that add up to `total`, all ways being equally likely."""
    cuts = np.sort(rng.choice(np.arange(1, total), parts - 1, replace=False))
    return np.diff(np.concatenate([[0], cuts, [total]]))


@dataclass(frozen=True)
class CorruptedRows:
    """The pieces of a store, each a row: `rows[i]`, `len(rows)`; see `pairs.PairRows` for what a row holds."""

    store: TokenStore
    corruption: Corruption
    source_length: int
    start_token: int

    @property
    def digest(self) -> str:
        """Of all rows in their order."""
        corruption = self.corruption
        what = [list(corruption.sentinels), corruption.end, corruption.seed, self.source_length, self.start_token]
        return digest([self.store.digest, *what])

    @cached_property
    def lengths(self) -> tuple[int, int]:
        """Of a piece and of its target."""
        return self.corruption.lengths(self.source_length)

    def __len__(self) -> int:
        # A last token alone has nothing to be taken out of.
        return -(-(len(self.store.tokens) - 1) // self.lengths[0])

    def __getitem__(self, index: SupportsIndex) -> Mapping[str, np.ndarray]:
        number, (length, target_length) = int(index), self.lengths
        if not 0 <= number < len(self):
            raise IndexError(number)
        pair = self.corruption.corrupt(self.store.tokens[number * length : (number + 1) * length], number)
        return packed_pair([pair], self.source_length, target_length, self.start_token)


def pieces(tokens: Sequence[int], length: int) -> list[Int[np.ndarray, " _"]]:
    """Tokens in pieces of so many, the last one shorter; one token alone is none."""
    cut = [np.asarray(tokens[start : start + length], np.int32) for start in range(0, len(tokens), length)]
    return [piece for piece in cut if len(piece) > 1]


def find_corruption(tokenizer: Any, seed: int = 0) -> Corruption:
    """The sentinels `<extra_id_0>`, ... and the end-of-text token of a tokenizer.

    Raises:
      InputError: it has none.
    """
    vocabulary = tokenizer.get_vocab()
    sentinels: list[int] = []
    while (token := f"<extra_id_{len(sentinels)}>") in vocabulary:
        sentinels.append(vocabulary[token])
    if not sentinels:
        raise InputError(
            "the tokenizer has no <extra_id_0>, which span corruption puts in the place of what it takes out; give "
            "pairs (.jsonl with input and target, --stage pairs), or add <extra_id_0>, ... to the tokenizer"
        )
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no end-of-text token, which closes source and target; add one to it")
    return Corruption(tuple(sentinels), tokenizer.eos_token_id, seed)
