"""Training data: files of text or conversations as packed rows of tokens.

`open_data` goes from `--data` to rows, `make_loader` from rows to batches.
"""

from collections.abc import Callable
from pathlib import Path

from lesa_jax.base.errors import InputError
from lesa_jax.data.chat import FastTokenizer
from lesa_jax.data.corruption import CorruptedRows, find_corruption
from lesa_jax.data.loader import Loader, make_loader
from lesa_jax.data.mixture import Mixture
from lesa_jax.data.packing import pack_rows
from lesa_jax.data.pairs import pack_pairs
from lesa_jax.data.sources import find_files, split_shares
from lesa_jax.data.store import TokenStore
from lesa_jax.data.tokens import Stage, token_store

__all__ = ["Loader", "Mixture", "Stage", "TokenStore", "find_files", "make_loader", "open_data"]


def open_data(
    data: str,
    stage: Stage,
    tokenizer: FastTokenizer,
    tokenizer_folder: Path,
    vocab_size: int,
    sequence_length: int,
    cache: Path,
    advance: Callable[[int], None] = lambda nbytes: None,
    hashed: Callable[[int], None] = lambda nbytes: None,
    start_token: int | None = None,
    seed: int = 0,
) -> Mixture:
    """The rows of `sequence_length` tokens to train on; tokenised now, or earlier if `cache` has them.

    Args:
      data: a file, folder or glob, several separated by commas, or hf://NAME[@REVISION][:SPLIT]; or several of these
        with their shares, as in new.jsonl:0.9,old.jsonl:0.1.
      stage: pretrain: documents of text. sft: conversations, of which the assistant's turns are learned. pairs: what
        an encoder-decoder reads, and what it is to write.
      tokenizer: a fast transformers tokenizer, for sft with messages one that has a chat template.
      tokenizer_folder: where it was loaded from, for messages.
      vocab_size: the model's.
      sequence_length: tokens of a row.
      cache: folder for tokenised data, made if it is missing.
      advance: called with the number of bytes just tokenised.
      hashed: called, from several threads, with the number of bytes just read to see whether the cache has them.
      start_token: what the decoder of an encoder-decoder begins with; such a model learns documents by span corruption.
      seed: of that.

    Returns:
      The rows; the `.store` of each part counts conversations that were truncated and records that were dropped.

    Raises InputError for anything of these that cannot be used.
    """
    if sequence_length < 1:
        raise InputError(f"--sequence-length {sequence_length}: expected at least 1")
    names, shares = zip(*split_shares(data), strict=True)
    stores = [
        token_store(name, stage, tokenizer, tokenizer_folder, vocab_size, sequence_length, cache, advance, hashed)
        for name in names
    ]
    if start_token is None:
        return Mixture(tuple(pack_rows(store, sequence_length) for store in stores), shares)
    if stage == "pairs":
        rows = (pack_pairs(store, sequence_length, sequence_length, start_token) for store in stores)
        return Mixture(tuple(rows), shares)
    corruption = find_corruption(tokenizer, seed)
    return Mixture(tuple(CorruptedRows(store, corruption, sequence_length, start_token) for store in stores), shares)
