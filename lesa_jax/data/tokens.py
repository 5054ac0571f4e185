"""The data is tokenised once, and found again by its key: the digest of all that decides which tokens there are."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, TypeVar

import jinja2
import numpy as np
import tokenizers
from jaxtyping import Int

from lesa_jax.base.digests import digest
from lesa_jax.base.errors import InputError
from lesa_jax.base.folders import publish
from lesa_jax.base.locks import turn
from lesa_jax.checkpoint.tokenizer import tokenizer_errors
from lesa_jax.data.chat import Conversation, FastTokenizer, assistant_mask, chat_template, render
from lesa_jax.data.cutting import Cutter, Piece
from lesa_jax.data.pairs import texts_of
from lesa_jax.data.sources import Record, Source, find_source, read_records, text_of
from lesa_jax.data.store import VERSION, StoreWriter, TokenStore, open_store, token_dtype
from lesa_jax.data.templates import Templates

Stage = Literal["pretrain", "sft", "pairs"]

BATCH_CHARACTERS = 1 << 20  # tokenised at once: keeps all cores busy, at some 100 MB
BATCH_TEXTS = 1024


def token_store(
    data: str,
    stage: Stage,
    tokenizer: FastTokenizer,
    tokenizer_folder: Path,
    vocab_size: int,
    sequence_length: int,
    cache: Path,
    advance: Callable[[int], None] = lambda nbytes: None,
    hashed: Callable[[int], None] = lambda nbytes: None,
) -> TokenStore:
    """The tokens of `data`, from the cache or made now; memory does not grow with the data.

    Args:
      data: files as in `sources.find_files`, or hf://NAME[@REVISION][:SPLIT].
      stage: pretrain: "text" records, each a document. sft: conversations (`chat`). pairs: "input" and "target".
      tokenizer: a fast transformers tokenizer.
      tokenizer_folder: where it was loaded from, for messages.
      vocab_size: the model's.
      sequence_length: for sft, conversations are cut to one token more, as inputs and targets are shifted by one; for
        pairs, both texts are cut to it.
      cache: folder of stores.
      advance: called with the number of bytes just tokenised; never called where the cache has the store.
      hashed: called, from several threads, with the number of bytes just read to find the store.

    Raises InputError for data, tokenizer or cache that cannot be used, and data that change meanwhile.
    """
    if not tokenizer.is_fast:
        raise InputError(f"{tokenizer_folder}: not a fast tokenizer; put its tokenizer.json beside the weights")
    source = find_source(data, hashed)
    with tokenizer_errors(f"{tokenizer_folder}: its tokenizer cannot tokenise the data", "repair or replace it"):
        key = store_key(source, stage, tokenizer, vocab_size, sequence_length)
        folder = cache / key
        try:
            if not folder.is_dir():
                cache.mkdir(parents=True, exist_ok=True)
                with turn(cache / f".{key}.lock", "tokenises the same data"):
                    if not folder.is_dir():
                        records = read_records(source, advance)
                        _make_store(folder, records, stage, tokenizer, vocab_size, sequence_length)
        except OSError as error:  # the data's own are InputErrors by now
            raise InputError(f"{cache}: cannot write tokens there ({error}); choose another cache folder") from None
    return open_store(folder, vocab_size)


def store_key(source: Source, stage: Stage, tokenizer: FastTokenizer, vocab_size: int, sequence_length: int) -> str:
    """The digest of everything that decides which tokens a store holds, and how they lie in it."""
    backend = plain_backend(tokenizer)
    parts = {
        "version": VERSION,
        "tokenizers": tokenizers.__version__,
        "data": source.identity,
        "tokenizer": backend.to_str(),
        "edges": _edges(tokenizer),
        "special_as_text": backend.encode_special_tokens,
        "stage": stage,
        "dtype": token_dtype(vocab_size),
    }
    if stage == "pairs":
        parts["length"] = sequence_length
    if stage == "sft":
        parts["template"] = chat_template(tokenizer)
        parts["special"] = tokenizer.special_tokens_map
        parts["length"] = sequence_length
        parts["jinja2"] = jinja2.__version__
    return digest(parts)


def plain_backend(tokenizer: FastTokenizer) -> Any:
    """The `tokenizers.Tokenizer` inside, which takes half the time of the transformers call around it.

    Without the truncation and padding that some tokenizer.json files ask for; as the call does it.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend


def _make_store(
    folder: Path,
    records: Iterator[Record],
    stage: Stage,
    tokenizer: FastTokenizer,
    vocab_size: int,
    sequence_length: int,
) -> None:
    """Writes the store beside its place and renames it."""
    with publish(folder) as hidden, closing(StoreWriter(hidden, stage != "pretrain", vocab_size)) as writer:
        match stage:
            case "sft":
                _write_conversations(writer, records, tokenizer, sequence_length + 1)
            case "pairs":
                _write_pairs(writer, records, tokenizer, sequence_length)
            case "pretrain":
                _write_texts(writer, records, tokenizer)
        writer.finish()


# What is tokenised together.
Text = TypeVar("Text", Piece, Conversation)


def _write_texts(writer: StoreWriter, records: Iterator[Record], tokenizer: FastTokenizer) -> None:
    before, after = _edges(tokenizer)
    backend = plain_backend(tokenizer)
    cutter = Cutter(backend)
    for pieces in _batches(piece for document in _documents(records) for piece in cutter.pieces(document)):
        encoded = backend.encode_batch_fast([piece.text for piece in pieces], add_special_tokens=False)
        for piece, encoding in zip(pieces, encoded, strict=True):
            whole_and_blank = piece.starts and piece.ends and not piece.text.strip()
            if not whole_and_blank:
                parts = [before] * piece.starts + [encoding.ids[piece.drop :]] + [after] * piece.ends
                writer.append(np.concatenate([np.asarray(part, np.int64) for part in parts]))
            if piece.ends:
                writer.end_document()


def _documents(records: Iterator[Record]) -> Iterator[Iterator[str]]:
    """The text of each document in parts; each is to be read to its end before the next."""

    def parts(record: Record) -> Iterator[str]:
        for part in itertools.chain([record], records):
            yield text_of(part)
            if part.ends:
                return

    return map(parts, records)


def _write_conversations(writer: StoreWriter, records: Iterable[Record], tokenizer: FastTokenizer, length: int) -> None:
    """Writes conversations of at most `length` tokens, and counts what does not fit."""
    before, after = (np.asarray(ids, np.int64) for ids in _edges(tokenizer))
    with closing(Templates()) as templates:
        for batch in _batches(render(record, tokenizer, templates) for record in records):
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


def _write_pairs(writer: StoreWriter, records: Iterable[Record], tokenizer: FastTokenizer, length: int) -> None:
    """Writes pairs, each text cut to `length` tokens, and counts those that were cut, or have an empty target."""
    pairs = map(texts_of, records)
    while batch := list(itertools.islice(pairs, BATCH_TEXTS)):
        for source, target in encode_pairs(batch, tokenizer):
            if not len(target):
                writer.dropped += 1
                continue
            writer.truncated += max(len(source), len(target)) > length
            for ids, learned in ((cut(source, length), 0), (cut(target, length), 1)):
                writer.append(ids, np.full(len(ids), learned, np.uint8))
            writer.end_document()


def encode_pairs(
    texts: Sequence[tuple[str, str]], tokenizer: FastTokenizer
) -> Iterator[tuple[Int[np.ndarray, " source"], Int[np.ndarray, " target"]]]:
    """The tokens of two texts each, with the special ones around both; no target for an empty text."""
    (before, after), backend = _edges(tokenizer), plain_backend(tokenizer)
    encoded = backend.encode_batch_fast([text for pair in texts for text in pair], add_special_tokens=False)
    ids = [np.asarray([*before, *encoding.ids, *after], np.int64) for encoding in encoded]
    for source, target, (_, text) in zip(ids[::2], ids[1::2], texts, strict=True):
        yield source, target if text.strip() else target[:0]


def cut(ids: Int[np.ndarray, " tokens"], length: int) -> Int[np.ndarray, " cut"]:
    """The first of them, and the last one in any case: it says where the text ends."""
    return ids if len(ids) <= length else np.append(ids[: length - 1], ids[-1])


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
    before, after = _own_edges(plain_backend(tokenizer))
    eos = tokenizer.eos_token_id
    return before, after if eos is None or eos in after else [*after, eos]


def _own_edges(backend: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts around any text."""
    if backend.num_special_tokens_to_add(is_pair=False) == 0:
        return [], []
    words = itertools.chain(["a"], backend.get_vocab(with_added_tokens=True))  # it need not know the letter
    encodings = (backend.encode(word, add_special_tokens=True) for word in words)
    for encoding in encodings:
        inside = [place for place, sequence in enumerate(encoding.sequence_ids) if sequence is not None]
        if inside:
            return encoding.ids[: inside[0]], encoding.ids[inside[-1] + 1 :]
    raise ValueError("it knows none of its own words")
