"""How perplexity is counted, by the two protocols in use.

corpus: the whole text is one row of tokens, cut into windows that do not overlap; each window predicts its second to
  last token, the last and shorter window too; perplexity = exp(total nll / predicted tokens).
line (arXiv 2502.13794): the arithmetic mean over the non-empty lines of exp(mean nll of the line), each line cut to
  2,048 tokens. Rare hard lines dominate it; do not compare its values with the corpus protocol's.

Special tokens are those that the tokenizer adds by itself: Llama's begin-of-text once before the corpus, or before
each line. A row with fewer than two tokens predicts nothing and is left out.
"""

from typing import Literal

import numpy as np
from jaxtyping import Int

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.tokenizer import Tokenizer, check_vocabulary, tokenizer_errors
from lesa_jax.families.model import ModelConfig

PplProtocol = Literal["corpus", "line"]

# Tokens of a window and of a line, unless the model has fewer positions.
DEFAULT_LENGTHS: dict[PplProtocol, int] = {"corpus": 1024, "line": 2048}


def token_rows(
    tokenizer: Tokenizer, text: str, protocol: PplProtocol, config: ModelConfig, sequence_length: int | None = None
) -> list[Int[np.ndarray, " _"]]:
    """The text as the rows that the protocol predicts, each of 2 to `sequence_length` tokens.

    Raises InputError for a length beyond the model's positions, and for token ids beyond its embedding.
    """
    length = row_length(protocol, config, sequence_length)
    with tokenizer_errors("the model's tokenizer cannot tokenise the text", "repair or replace tokenizer.json"):
        if protocol == "corpus":
            ids = np.asarray(tokenizer(text, verbose=False)["input_ids"], np.int32)
            rows = [ids[start : start + length] for start in range(0, len(ids), length)]
        else:
            lines = [line for line in text.split("\n") if line.strip()]
            encoded = tokenizer(lines, verbose=False)["input_ids"] if lines else []
            rows = [np.asarray(ids[:length], np.int32) for ids in encoded]
    rows = [row for row in rows if len(row) > 1]
    check_vocabulary(max((int(row.max()) for row in rows), default=0), config.vocab_size)
    return rows


def row_length(protocol: PplProtocol, config: ModelConfig, sequence_length: int | None) -> int:
    """`sequence_length`, or the protocol's default; refused where the model has fewer positions."""
    positions = config.max_position_embeddings
    if sequence_length is None:
        return min(DEFAULT_LENGTHS[protocol], positions)
    if not 2 <= sequence_length <= positions:
        raise InputError(
            f"--sequence-length {sequence_length}: expected 2 to {positions}, the model's max_position_embeddings"
        )
    return sequence_length
