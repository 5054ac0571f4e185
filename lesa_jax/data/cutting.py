"""Long texts in pieces whose tokens, one after the other, are those of the whole text.

A tokenizer treats the start of a text in its own way (many put a space in front), and may join what a cut takes apart.
So a piece is tokenised behind some of the text before it, whose tokens are then dropped; and a text is cut only where
the tokenizer itself is seen to end a token, whatever follows.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# Places where a tokenizer is likely to end a token, best first: between two words, after a letter, before a letter.
LIKELY = (
    re.compile(r"(?<=[^\W\d_])(?= [^\W\d_])"),
    re.compile(r"(?<=[^\W\d_])(?=[\W\d_])"),
    re.compile(r"(?<=[\W\d_])(?=[^\W\d_])"),
)
TRIES = 8  # where no place is likely: ends of tokens that are tried, and contexts for each


@dataclass(frozen=True)
class Piece:
    """A part of a document, or all of it.

    Attributes:
      text: to be tokenised.
      drop: how many of its first tokens are those of the piece before.
      starts, ends: whether it holds its document's beginning and end.
    """

    text: str
    drop: int
    starts: bool
    ends: bool


@dataclass(frozen=True)
class Cut:
    """Where a piece ends.

    Attributes:
      at: characters of the piece.
      context: the text before that place behind which the next piece is tokenised.
      drop: tokens of the context.
    """

    at: int
    context: str
    drop: int


@dataclass(frozen=True)
class Cutter:
    """Cuts texts for one tokenizer.

    Attributes:
      backend: the `tokenizers.Tokenizer`.
      limit: characters of a piece: pre-tokenizers take longer per character of a long one.
      reach: characters on either side of a place within which the tokenizer is watched.
      longest: characters up to which a piece grows in search of a place; then it is cut anyway, and a token of the
        whole text, such as an unknown word of a million letters, may become two.
    """

    backend: Any
    limit: int = 1 << 14
    reach: int = 1 << 8
    longest: int = 1 << 20

    def pieces(self, chunks: Iterable[str]) -> Iterator[Piece]:
        """The pieces of one document, whose text comes in any chunks."""
        pending, limit, cut = "", self.limit, Cut(0, "", 0)
        starts = True
        for chunk in chunks:
            for begin in range(0, len(chunk), self.limit):
                pending += chunk[begin : begin + self.limit]
                while len(pending) >= limit + self.reach:
                    found = self._find(pending, limit, cut)
                    if found is None:
                        limit *= 2
                        continue
                    yield Piece(cut.context + pending[: found.at], cut.drop, starts, ends=False)
                    pending, limit, cut, starts = pending[found.at :], self.limit, found, False
        yield Piece(cut.context + pending, cut.drop, starts, ends=True)

    def _find(self, text: str, limit: int, before: Cut) -> Cut | None:
        """The end of a piece of at most `limit` characters; None if it should be sought further on.

        Args:
          text: what follows after `before`, `reach` characters beyond the limit at least.
          limit: characters.
          before: where the text begins.
        """
        for start in (limit - self.reach, 1):  # near the limit there nearly always is one
            for pattern in LIKELY:
                places = [match.start() for match in pattern.finditer(text, start, limit + 1)]
                if places and (cut := self._likely(text, places[-1])):
                    return cut
        if cut := self._seen(text[: limit + self.reach], before):
            return cut
        if limit < self.longest:
            return None
        context = text[limit - self.reach : limit]
        return Cut(limit, context, len(self._ids(context)))

    def _likely(self, text: str, place: int) -> Cut | None:
        """A cut at a likely place, if a token ends there in the text around it."""
        begin = max(0, place - self.reach)
        window = text[begin : place + self.reach]
        drop = self._same(window, 0, place - begin, self._ids(window))
        return None if drop is None else Cut(place, text[begin:place], drop)

    def _seen(self, text: str, before: Cut) -> Cut | None:
        """A cut at the end of one of the text's last tokens, behind a context from which the tokens go on as they do
        from the text's beginning: a row of equal letters is split from its start.

        None for a unigram model, which seeks the best split of a whole word: a row of equal letters by its length.
        """
        if type(self.backend.model).__name__ == "Unigram":
            return None
        skipped = len(before.context)
        text = before.context + text
        encoding = self.backend.encode(text, add_special_tokens=False)
        watched = max(self.reach, len(text) // 4)
        ends = sorted({stop for _, stop in encoding.offsets if skipped < stop <= len(text) - watched})
        for place in reversed(ends[-TRIES:]):
            begins = [stop for stop in ends if stop <= place - self.reach][-TRIES:]
            for begin in [*reversed(begins), 0]:
                if (drop := self._same(text, begin, place, encoding.ids)) is not None:
                    return Cut(place - skipped, text[begin:place], drop)
        return None

    def _same(self, text: str, begin: int, place: int, ids: Sequence[int]) -> int | None:
        """The number of tokens of text[begin:place], if the text's `ids` come of two parts, too: the part up to the
        place, and the rest of it behind text[begin:place]."""
        left = self._ids(text[:place])
        if ids[: len(left)] != left:
            return None
        context, rest = self._ids(text[begin:place]), self._ids(text[begin:])
        same = rest[: len(context)] == context and rest[len(context) :] == ids[len(left) :]
        return len(context) if same else None

    def _ids(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids
