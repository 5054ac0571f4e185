"""What the tasks of this folder ask, made from a text: any text, by default that of the demo model.

lm-evaluation-harness loads this file by its path, for itself as for lesa_jax (`lm_eval --include_path` of the folder).
"""

import random
import re
from pathlib import Path
from typing import Any

import datasets

from lesa_jax import demo
from lesa_jax.base.errors import InputError

DOCUMENTS = 200  # of a task, at most
CONTEXT, CONTINUATION = 60, 8  # words
CHOICES = 4
PIECE = 8000  # characters of a whole text that are read in one go
WORD = re.compile(r"[A-Za-z]{4,}")


def read(text: str | None) -> str:
    return demo.evaluation_text() if text is None else Path(text).read_text(encoding="utf-8")


def spread(found: list[Any]) -> list[Any]:
    """At most so many, from all over the text."""
    step = max(1, len(found) // DOCUMENTS)
    return found[::step][:DOCUMENTS]


def test_split(documents: list[dict[str, Any]]) -> dict[str, datasets.Dataset]:
    if not documents:
        raise InputError(f"--text: has no passage of {CONTEXT} words and more to make a task of; name a longer text")
    return {"test": datasets.Dataset.from_list(documents)}


def passages(text: str, words: int) -> list[tuple[str, str]]:
    """Passages of `CONTEXT` words, each with the `words` that come behind it and one space."""
    found = [match.span() for match in re.finditer(r"\S+", text)]
    cuts = []
    for first in range(len(found) - CONTEXT - words):
        start, end, after = found[first][0], found[first + CONTEXT - 1][1], found[first + CONTEXT][0]
        if text[end:after] == " ":
            cuts.append((text[start:end], text[after : found[first + CONTEXT + words - 1][1]]))
    return cuts


def cloze(text: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """Which word of four letters or more comes next."""
    asked = [(context, word) for context, word in passages(read(text), 1) if WORD.fullmatch(word)]
    return test_split([{"text": context, "target": word} for context, word in spread(asked)])


def choice(text: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """Which of several continuations is the passage's own; the others are those of other passages."""
    asked, draw, documents = spread(passages(read(text), CONTINUATION)), random.Random(0), []
    for number, (context, continuation) in enumerate(asked):
        others = [other for _, other in asked[:number] + asked[number + 1 :] if other != continuation]
        choices = draw.sample(others, min(CHOICES - 1, len(others)))
        answer = draw.randrange(len(choices) + 1)
        choices.insert(answer, continuation)
        documents.append({"text": context, "choices": choices, "answer": answer})
    return test_split(documents)


def whole(text: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """All of the text, in pieces that end with a line."""
    pieces = [""]
    for line in read(text).splitlines(keepends=True):
        if len(pieces[-1]) > PIECE:
            pieces.append("")
        pieces[-1] += line
    return test_split([{"text": piece} for piece in pieces if piece.strip()])
