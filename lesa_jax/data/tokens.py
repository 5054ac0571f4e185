"""Tokens on the disk: the data is tokenised once, streamed into memory-mapped files, and found again by its key.

A store is a folder of four files: store.json, tokens.bin (uint16 where the vocabulary allows, else uint32), offsets.bin
(int64) and, for conversations, mask.bin (uint8). It is written under a hidden name and renamed when it is complete.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np
from jaxtyping import Int, Integer, UInt8

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json, write_json
from lesa_jax.base.folders import publish
from lesa_jax.checkpoint.tokenizer import check_vocabulary
from lesa_jax.data.chat import Conversation, FastTokenizer, assistant_mask, chat_template, render
from lesa_jax.data.sources import Record, cut_text, fingerprint, read_records, text_of

Stage = Literal["pretrain", "sft"]

VERSION = 1  # of the store's format and of everything that decides which tokens are in it
META = "store.json"
BATCH_CHARACTERS = 1 << 20  # tokenised at once: keeps all cores busy, at some 100 MB
BATCH_TEXTS = 1024
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


@dataclass(frozen=True)
class TokenStore:
    """Tokenised documents, or conversations, one after the other.

    Attributes:
      tokens: all token ids, memory-mapped.
      offsets: document d is tokens[offsets[d] : offsets[d + 1]]; every document has at least two tokens.
      mask: for conversations 1 for the assistant's tokens, memory-mapped; else None.
      truncated: conversations that were cut to the sequence length.
      dropped: documents left out because nothing could be learned of them: no text, or no assistant's word left.
      folder: where it lies.
    """

    tokens: Integer[np.ndarray, " tokens"]
    offsets: Int[np.ndarray, " documents_and_1"]
    mask: UInt8[np.ndarray, " tokens"] | None
    truncated: int
    dropped: int
    folder: Path


def token_store(
    data: str,
    stage: Stage,
    tokenizer: FastTokenizer,
    tokenizer_folder: Path,
    vocab_size: int,
    sequence_length: int,
    cache: Path,
    advance: Callable[[int], None] = lambda nbytes: None,
) -> TokenStore:
    """The tokens of `data`, from the cache or made now; memory does not grow with the data.

    Args:
      data: files as in `sources.find_files`, or hf://NAME[:SPLIT].
      stage: pretrain: "text" records, each a document. sft: conversations (`chat`).
      tokenizer: a fast transformers tokenizer.
      tokenizer_folder: where it was loaded from.
      vocab_size: the model's.
      sequence_length: for sft, conversations are cut to one token more, as inputs and targets are shifted by one.
      cache: folder of stores.
      advance: called with the number of bytes just read from the data; never called where the cache has the store.

    Raises InputError for data, tokenizer or cache that cannot be used.
    """
    if not tokenizer.is_fast:
        raise InputError(f"{tokenizer_folder}: not a fast tokenizer; put its tokenizer.json beside the weights")
    folder = cache / store_key(data, stage, tokenizer, tokenizer_folder, sequence_length)
    if not folder.exists():
        records = read_records(data, advance)
        try:
            _make_store(folder, records, stage, tokenizer, vocab_size, sequence_length)
        except OSError as error:  # the data's own are InputErrors by now
            raise InputError(f"{cache}: cannot write tokens there ({error}); choose another cache folder") from None
    return open_store(folder, vocab_size)


def store_key(data: str, stage: Stage, tokenizer: FastTokenizer, tokenizer_folder: Path, sequence_length: int) -> str:
    """sha256 of everything that decides which tokens a store holds."""
    files = [tokenizer_folder / name for name in TOKENIZER_FILES if (tokenizer_folder / name).is_file()]
    if not files:
        raise InputError(f"{tokenizer_folder}: no tokenizer files; put tokenizer.json there")
    parts = {
        "version": VERSION,
        "data": fingerprint(data),
        "tokenizer": [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files],
        "stage": stage,
        "sft": (sequence_length, chat_template(tokenizer)) if stage == "sft" else None,
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def open_store(folder: Path, vocab_size: int) -> TokenStore:
    """Opens a store. Raises InputError if it is damaged or holds token ids that the model does not have."""
    meta = read_json(folder / META, "remove the folder, and the data is tokenised again")
    try:
        largest = meta["largest"]
        sizes = {"tokens": (meta["dtype"], meta["tokens"]), "offsets": ("<i8", meta["documents"] + 1)}
        if meta["masked"]:
            sizes["mask"] = ("|u1", meta["tokens"])
        arrays = {
            name: np.memmap(folder / f"{name}.bin", np.dtype(dtype), mode="r", shape=(size,))
            for name, (dtype, size) in sizes.items()
        }
        store = TokenStore(
            arrays["tokens"], arrays["offsets"], arrays.get("mask"), meta["truncated"], meta["dropped"], folder
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: damaged token cache ({error}); remove this folder") from None
    check_vocabulary(largest, vocab_size)
    return store


def _make_store(
    folder: Path,
    records: Iterator[Record],
    stage: Stage,
    tokenizer: FastTokenizer,
    vocab_size: int,
    sequence_length: int,
) -> None:
    """Writes the store beside its place and renames it, unless another process was first."""
    with publish(folder) as hidden:
        with ExitStack() as files:
            writer = _StoreWriter(hidden, stage == "sft", vocab_size, files)
            if stage == "sft":
                _write_conversations(writer, records, tokenizer, sequence_length + 1)
            else:
                _write_texts(writer, records, tokenizer)
            meta = writer.meta()
        write_json(hidden / META, meta)


class _StoreWriter:
    """The open files of a store, and what is counted while they are written."""

    def __init__(self, folder: Path, masked: bool, vocab_size: int, files: ExitStack):
        self.vocab_size = vocab_size
        self.dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
        self.files: Mapping[str, BinaryIO] = {
            name: files.enter_context((folder / f"{name}.bin").open("wb"))
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

    def meta(self) -> dict[str, Any]:
        """Content of store.json. Raises InputError where nothing was written."""
        masked = "mask" in self.files
        if not self.documents:
            what = "an assistant's word within --sequence-length" if masked else "two tokens of text"
            raise InputError(f"--data: none of {self.dropped} records has {what}; nothing can be learned from it")
        return {
            "version": VERSION,
            "dtype": self.dtype.str,
            "masked": masked,
            "tokens": self.tokens,
            "documents": self.documents,
            "largest": self.largest,
            "truncated": self.truncated,
            "dropped": self.dropped,
        }


@dataclass(frozen=True)
class _Piece:
    """A part of a document's text, or all of it."""

    text: str
    starts: bool
    ends: bool


# What is tokenised together.
Text = TypeVar("Text", _Piece, Conversation)


def _write_texts(writer: _StoreWriter, records: Iterable[Record], tokenizer: FastTokenizer) -> None:
    before, after = _edges(tokenizer)
    # Half the time of the transformers call around it, whose settings `_edges` has just put in force.
    backend = tokenizer.backend_tokenizer
    for pieces in _batches(_pieces(records)):
        encoded = backend.encode_batch_fast([p.text for p in pieces], add_special_tokens=False)
        for piece, encoding in zip(pieces, encoded, strict=True):
            whole_and_blank = piece.starts and piece.ends and not piece.text.strip()
            if not whole_and_blank:
                parts = [before] * piece.starts + [encoding.ids] + [after] * piece.ends
                writer.append(np.concatenate([np.asarray(part, np.int64) for part in parts]))
            if piece.ends:
                writer.end_document()


def _pieces(records: Iterable[Record]) -> Iterator[_Piece]:
    for record in records:
        starts = record.starts
        for text, last in cut_text([text_of(record)]):
            yield _Piece(text, starts, record.ends and last)
            starts = False


def _write_conversations(
    writer: _StoreWriter, records: Iterable[Record], tokenizer: FastTokenizer, length: int
) -> None:
    """Writes conversations of at most `length` tokens, and counts what does not fit."""
    before, after = (np.asarray(ids, np.int64) for ids in _edges(tokenizer))
    for batch in _batches(render(record, tokenizer) for record in records):
        texts = [conversation.text for conversation in batch]
        encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        for conversation, ids, offsets in zip(batch, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            ids = np.asarray(ids, np.int64)
            mask = assistant_mask(np.asarray(offsets, np.int64).reshape(-1, 2), conversation.spans)
            if not conversation.templated:
                ids = np.concatenate([before, ids, after])
                mask = np.concatenate([np.zeros(len(before), np.uint8), mask, np.ones(len(after), np.uint8)])
            if not mask[1:length].any():
                writer.dropped += 1
                continue
            writer.truncated += len(ids) > length
            writer.append(ids[:length], mask[:length])
            writer.end_document()


def _batches(texts: Iterable[Text]) -> Iterator[list[Text]]:
    batch, characters = [], 0
    for text in texts:
        batch.append(text)
        characters += len(text.text)
        if characters >= BATCH_CHARACTERS or len(batch) == BATCH_TEXTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _edges(tokenizer: FastTokenizer) -> tuple[Sequence[int], Sequence[int]]:
    """What comes before and after a document: the tokenizer's own special tokens, and the end-of-text token once."""
    probe = tokenizer("a", return_special_tokens_mask=True, verbose=False)
    own = [place for place, special in enumerate(probe["special_tokens_mask"]) if not special]
    before, after = probe["input_ids"][: own[0]], probe["input_ids"][own[-1] + 1 :]
    eos = tokenizer.eos_token_id
    return before, after if eos is None or eos in after else [*after, eos]
