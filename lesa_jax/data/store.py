"""Tokens on the disk: a folder of files that are memory-mapped, and known by their digests.

store.json, tokens.bin (uint16 where the vocabulary allows, else uint32), offsets.bin (int64) and, for conversations,
mask.bin (uint8).
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int, Integer, UInt8

from lesa_jax.base.digests import digest, digest_files
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json, write_json
from lesa_jax.checkpoint.tokenizer import check_vocabulary

VERSION = 2  # of the store's format and of everything that decides which tokens are in it
META = "store.json"


@dataclass(frozen=True)
class TokenStore:
    """Tokenised documents, or conversations, one after the other.

    Attributes:
      tokens: all token ids, memory-mapped.
      offsets: document d is tokens[offsets[d] : offsets[d + 1]]; every document has at least two tokens.
      mask: for conversations 1 for the assistant's tokens, memory-mapped; else None.
      truncated: conversations that were cut to the sequence length.
      dropped: documents left out because nothing could be learned of them: no text, or no assistant's word left.
      digest: of all that is in it, whatever it was made from.
    """

    tokens: Integer[np.ndarray, " tokens"]
    offsets: Int[np.ndarray, " documents_and_1"]
    mask: UInt8[np.ndarray, " tokens"] | None
    truncated: int
    dropped: int
    digest: str


def token_dtype(vocab_size: int) -> str:
    """Of the tokens on the disk."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


def open_store(folder: Path, vocab_size: int) -> TokenStore:
    """Opens a store, and reads all of it once, at the speed of the disk, to see that it is what was written.

    Raises InputError if it is damaged or holds token ids that the model does not have.
    """
    try:
        meta = read_json(folder / META, "a token store has one")
        known = meta.pop("digest")
        largest, sizes = meta["largest"], {"tokens": (meta["dtype"], meta["tokens"])}
        sizes["offsets"] = ("<i8", meta["documents"] + 1)
        if meta["masked"]:
            sizes["mask"] = ("|u1", meta["tokens"])
        files = [folder / f"{name}.bin" for name in sizes]
        if known != digest(meta) or digest_files(files) != meta["sha256"]:
            raise ValueError("not the bytes that were written")
        arrays = {
            name: np.memmap(file, np.dtype(dtype), mode="r", shape=(size,))
            for file, (name, (dtype, size)) in zip(files, sizes.items(), strict=True)
        }
        store = TokenStore(
            arrays["tokens"], arrays["offsets"], arrays.get("mask"), meta["truncated"], meta["dropped"], known
        )
    except (OSError, ValueError, KeyError, TypeError) as error:  # an InputError is a ValueError
        raise InputError(f"{folder}: damaged token cache ({error}); remove this folder") from None
    check_vocabulary(largest, vocab_size)
    return store


class StoreWriter:
    """The files of a store, and what is counted while they are written."""

    def __init__(self, folder: Path, masked: bool, vocab_size: int):
        self.folder = folder
        self.vocab_size = vocab_size
        self.dtype = np.dtype(token_dtype(vocab_size))
        self.opened = ExitStack()
        self.files: Mapping[str, BinaryIO] = {
            name: self.opened.enter_context((folder / f"{name}.bin").open("wb"))
            for name in ("tokens", "offsets", *(["mask"] if masked else []))
        }
        self.start = 0  # of the document that is being written
        self.tokens = 0
        self.documents = 0
        self.largest = 0
        self.truncated = 0
        self.dropped = 0
        self.files["offsets"].write(np.int64(0).tobytes())

    def append(self, ids: Int[np.ndarray, " n"], mask: UInt8[np.ndarray, " n"] | None = None) -> None:
        """Adds tokens to the current document."""
        if not len(ids):
            return
        self.largest = max(self.largest, int(ids.max()))
        check_vocabulary(self.largest, self.vocab_size)
        self.files["tokens"].write(ids.astype(self.dtype).tobytes())
        if mask is not None:
            self.files["mask"].write(mask.tobytes())
        self.tokens += len(ids)

    def end_document(self) -> None:
        """Ends the document; one of a single token, of which nothing can be predicted, is taken back."""
        if self.tokens - self.start < 2:
            self.dropped += 1
            self.tokens = self.start
            self.files["tokens"].seek(self.start * self.dtype.itemsize)
            self.files["tokens"].truncate()
            return
        self.start = self.tokens
        self.documents += 1
        self.files["offsets"].write(np.int64(self.start).tobytes())

    def close(self) -> None:
        """Closes the files; after an error, too."""
        self.opened.close()

    def finish(self) -> None:
        """Writes store.json when all else is written. Raises InputError where nothing was."""
        self.close()
        masked = "mask" in self.files
        if not self.documents:
            what = "an assistant's word within --sequence-length" if masked else "two tokens of text"
            raise InputError(f"--data: none of {self.dropped} records has {what}; nothing can be learned from it")
        meta = {
            "version": VERSION,
            "dtype": self.dtype.str,
            "masked": masked,
            "tokens": self.tokens,
            "documents": self.documents,
            "largest": self.largest,
            "truncated": self.truncated,
            "dropped": self.dropped,
            "sha256": digest_files([self.folder / f"{name}.bin" for name in self.files]),
        }
        write_json(self.folder / META, meta | {"digest": digest(meta)})
