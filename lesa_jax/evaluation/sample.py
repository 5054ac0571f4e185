"""The beginning of a text, for what is measured on a few thousand tokens."""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.tokenizer import load_tokenizer
from lesa_jax.evaluation.protocol import token_rows
from lesa_jax.families.model import ModelConfig

TOKENS = 4096  # enough for a number a layer
ROW = 512  # tokens of a row, at most: what is done row by row has its memory bounded by it


def sample_rows(folder: Path, text: str, config: ModelConfig, tokens: int = TOKENS) -> Int[np.ndarray, "rows tokens"]:
    """The first tokens of the text as rows of equal length.

    Raises:
      InputError: there are fewer than two.
    """
    found = np.concatenate(
        token_rows(load_tokenizer(folder), text[: 16 * tokens], "corpus", config) or [np.zeros(0, np.int32)]
    )[:tokens]
    length = min(ROW, len(found), config.max_position_embeddings)
    if length < 2:
        raise InputError("the text that is measured on has fewer than two tokens; give a longer one")
    return found[: len(found) // length * length].reshape(-1, length)
