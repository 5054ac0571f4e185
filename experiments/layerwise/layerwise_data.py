"""Tokens of the experiment on layers of different sizes: clean ones, and with the defect of the published runs.

The public code of arXiv 2509.06518 saves tokens as int32 and reads them as uint16. Of every token the two halves are
read as a token each, and the upper one is zero.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PART = 1 << 20  # characters that are tokenised at a time


def misread(tokens_N: Int[np.ndarray, " tokens"]) -> Int[np.ndarray, " twice"]:
    """What is read of tokens that were saved as int32: uint16, twice as many, every second one zero."""
    return np.frombuffer(tokens_N.astype("<i4").tobytes(), "<u2").astype(np.int32)


def tokens_of(file: Path, tokenizer: Any, most: int) -> Int[np.ndarray, " tokens"]:
    """The first `most` tokens of a text file."""
    parts: list[np.ndarray] = []
    for part in pieces(file):
        parts.append(np.array(tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"], np.int32))
        if sum(map(len, parts)) >= most:
            break
    return np.concatenate(parts)[:most]


def pieces(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8") as text:
        while part := text.read(PART):
            yield part


def write_tokens(file: Path, tokens_N: Int[np.ndarray, " tokens"]) -> None:
    """As words that `word_tokenizer` reads."""
    file.write_text(" ".join(map(word, tokens_N.tolist())), encoding="utf-8")


def word(token: int) -> str:
    """In brackets: what ends a text is looked for inside of words, too."""
    return f"<{token}>"


def word_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Reads words as the tokens that they are."""
    tokenizer = Tokenizer(models.WordLevel({word(token): token for token in range(size)}, unk_token=word(0)))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=word(0), bos_token=word(0))


def windows(tokens_N: Int[np.ndarray, " tokens"], length: int) -> Int[np.ndarray, "windows length+1"]:
    """Windows of `length` tokens to predict, each with the one before; what is left over is left out."""
    count = (len(tokens_N) - 1) // length
    places = np.arange(count)[:, None] * length + np.arange(length + 1)[None]
    return tokens_N[places]
