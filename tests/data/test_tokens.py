"""The token cache: the same ids as the tokenizer gives, made once, and found again only for the same data."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import transformers as hf

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.data import open_data, sources, tokens
from lesa_jax.data.tokens import TokenStore, store_key, token_store
from tests.support.tokenizers import CHATML, INST, TALK, small_tokenizer

TEXTS = ["the user", "the good words, 123 and\n\nothers", "ü机"]


def write_lines(file: Path, records: list) -> str:
    file.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return str(file)


def make(tmp_path: Path, tokenizer, data: str, stage="pretrain", vocab_size=400, length=64, advance=None) -> TokenStore:
    folder = tmp_path / "tokenizer"
    tokenizer.save_pretrained(folder)
    advance = advance or (lambda nbytes: None)
    return token_store(data, stage, tokenizer, folder, vocab_size, length, tmp_path / "cache", advance)


def documents(store: TokenStore) -> list[list[int]]:
    return [store.tokens[a:b].tolist() for a, b in zip(store.offsets[:-1], store.offsets[1:], strict=True)]


def learned(store: TokenStore) -> list[list[int]]:
    return [store.mask[a:b].tolist() for a, b in zip(store.offsets[:-1], store.offsets[1:], strict=True)]


@pytest.mark.parametrize(("eos", "bos"), [("<eos>", None), ("<eos>", "<bos>"), (None, "<bos>"), (None, None)])
def test_documents_are_what_the_tokenizer_gives_and_the_end_token(tmp_path, eos, bos):
    tokenizer = small_tokenizer(eos=eos, bos=bos)
    store = make(tmp_path, tokenizer, write_lines(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS]))
    end = [] if eos is None else [tokenizer.eos_token_id]
    assert documents(store) == [tokenizer(text)["input_ids"] + end for text in TEXTS]
    assert (store.mask, store.truncated, store.dropped) == (None, 0, 0)


def test_an_end_token_that_the_tokenizer_adds_itself_is_not_doubled(tmp_path):
    tokenizer = small_tokenizer()
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 0)]
    )
    store = make(tmp_path, tokenizer, write_lines(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS]))
    assert documents(store) == [tokenizer(text)["input_ids"] for text in TEXTS]
    assert all(ids[0] == 1 and ids[-2:].count(0) == 1 for ids in documents(store))


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_a_text_in_pieces_has_the_tokens_of_the_whole(tmp_path, suffix):
    text = demo.evaluation_text()
    tokenizer = hf.AutoTokenizer.from_pretrained(demo.MODEL_DIRECTORY)
    tokenizer.backend_tokenizer.enable_truncation(100)  # as some tokenizer.json files have it
    file = tmp_path / f"a{suffix}"
    file.write_text(text if suffix == ".txt" else json.dumps({"text": text}), "utf-8")
    assert len(text) > 10 * sources.PIECE
    store = make(tmp_path, tokenizer, str(file), vocab_size=4096)
    assert documents(store) == [[*tokenizer(text, verbose=False)["input_ids"], tokenizer.eos_token_id]]


def test_batches_of_texts_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "BATCH_TEXTS", 2)
    monkeypatch.setattr(tokens, "BATCH_CHARACTERS", 20)
    tokenizer = small_tokenizer()
    texts = [f"{number} the user" * (number % 4 + 1) for number in range(20)]
    store = make(tmp_path, tokenizer, write_lines(tmp_path / "a.jsonl", [{"text": text} for text in texts]))
    assert [tokenizer.decode(ids[:-1]) for ids in documents(store)] == texts


def test_texts_that_predict_nothing_are_dropped_and_counted(tmp_path):
    tokenizer = small_tokenizer(eos=None)
    data = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in ("the user", "", "a", " \n ", "the user")])
    store = make(tmp_path, tokenizer, data)
    assert documents(store) == [tokenizer("the user")["input_ids"]] * 2
    assert store.dropped == 3
    assert store.tokens.size == store.offsets[-1] == (store.folder / "tokens.bin").stat().st_size // 2
    with pytest.raises(InputError, match="none of 2 records has two tokens"):
        make(tmp_path, tokenizer, write_lines(tmp_path / "b.jsonl", [{"text": ""}, {"text": "a"}]))


@pytest.mark.parametrize(("vocab_size", "dtype"), [(400, np.uint16), (65536, np.uint16), (65537, np.uint32)])
def test_ids_take_two_bytes_where_the_vocabulary_fits(tmp_path, vocab_size, dtype):
    store = make(
        tmp_path, small_tokenizer(), write_lines(tmp_path / "a.jsonl", [{"text": "a b"}]), vocab_size=vocab_size
    )
    assert store.tokens.dtype == dtype
    assert isinstance(store.tokens, np.memmap)


def test_a_tokenizer_of_another_model_is_refused_also_from_the_cache(tmp_path):
    data = write_lines(tmp_path / "a.jsonl", [{"text": "the user"}])
    for _ in range(2):
        with pytest.raises(InputError, match="token id .* vocab_size 9; the tokenizer belongs to another model"):
            make(tmp_path, small_tokenizer(), data, vocab_size=9)
        make(tmp_path, small_tokenizer(), data)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_store_is_made_once_and_again_for_changed_data(tmp_path):
    data = write_lines(tmp_path / "a.jsonl", [{"text": "the user"}])
    read = []
    first = make(tmp_path, small_tokenizer(), data, advance=read.append)
    second = make(tmp_path, small_tokenizer(), data, advance=read.append)
    assert sum(read) == os.path.getsize(data)
    assert documents(first) == documents(second)
    write_lines(tmp_path / "a.jsonl", [{"text": "the other"}])
    assert documents(make(tmp_path, small_tokenizer(), data)) != documents(first)


def test_the_key_depends_on_tokenizer_stage_and_for_conversations_on_length_and_template(tmp_path):
    data = write_lines(tmp_path / "a.jsonl", [{"text": "a"}])
    plain, changed = small_tokenizer(CHATML), small_tokenizer(CHATML, pad_token="<bos>")
    plain.save_pretrained(tmp_path / "plain")
    changed.save_pretrained(tmp_path / "changed")
    key = store_key(data, "pretrain", plain, tmp_path / "plain", 8)
    assert key == store_key(data, "pretrain", plain, tmp_path / "plain", 9)
    others = [
        store_key(data, "pretrain", changed, tmp_path / "changed", 8),
        store_key(data, "sft", plain, tmp_path / "plain", 8),
        store_key(data, "sft", plain, tmp_path / "plain", 9),
        store_key(data, "sft", small_tokenizer(INST), tmp_path / "plain", 9),
    ]
    assert len({key, *others}) == 5
    with pytest.raises(InputError, match="no tokenizer files"):
        store_key(data, "pretrain", plain, tmp_path, 8)


def test_failures_leave_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="a.jsonl:2"):
        make(tmp_path, small_tokenizer(), write_lines(tmp_path / "a.jsonl", [{"text": "a b"}, {}]))
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_processes_may_make_the_same_store(tmp_path):
    """The second one finds the first one's store in its place when it is done, and takes it."""
    data = write_lines(tmp_path / "a.jsonl", [{"text": "the user"}])
    tokenizer = small_tokenizer()
    inner: list[TokenStore] = []

    def other_process(nbytes: int) -> None:
        if not inner:
            inner.append(make(tmp_path, small_tokenizer(), data))

    outer = make(tmp_path, tokenizer, data, advance=other_process)
    assert documents(outer) == documents(inner[0])
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == [outer.folder.name]


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.bin", "store.json"])
def test_a_damaged_store_is_named(tmp_path, name):
    data = write_lines(tmp_path / "a.jsonl", [{"text": "the user"}])
    file = make(tmp_path, small_tokenizer(), data).folder / name
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(InputError, match=f"{file.parent.name}.*(remove this folder|download it again)"):
        make(tmp_path, small_tokenizer(), data)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="cache: cannot write tokens there"):
        make(tmp_path, small_tokenizer(), write_lines(tmp_path / "a.jsonl", [{"text": "the user"}]))


def test_conversations_are_masked_as_they_are_rendered(tmp_path):
    tokenizer = small_tokenizer(CHATML, bos="<bos>")
    store = make(tmp_path, tokenizer, write_lines(tmp_path / "a.jsonl", [{"messages": TALK}] * 3), "sft", length=200)
    ids = tokenizer.apply_chat_template(TALK, tokenize=True, return_dict=False)
    assert documents(store) == [ids] * 3
    words = np.array(ids)[np.array(learned(store)[2]) == 1]
    assert tokenizer.decode(words) == f"{TALK[1]['content']}<|im_end|>{TALK[3]['content']}<|im_end|>"


def test_an_alpaca_answer_is_learned_with_the_end_token(tmp_path):
    tokenizer = small_tokenizer(bos="<bos>")
    data = write_lines(tmp_path / "a.jsonl", [{"instruction": "say good", "output": "good words"}])
    store = make(tmp_path, tokenizer, data, "sft", length=300)
    assert tokenizer.decode(np.array(documents(store)[0])[np.array(learned(store)[0]) == 1]) == "good words<eos>"
    assert documents(store)[0][0] == tokenizer.bos_token_id


def test_long_conversations_are_cut_and_those_without_an_answer_left_are_dropped(tmp_path):
    tokenizer = small_tokenizer(CHATML)
    short, long = TALK[:2], [TALK[0], {"role": "assistant", "content": "the good words " * 50}]
    lost = [{"role": "user", "content": "the good words " * 50}, TALK[1]]
    data = write_lines(tmp_path / "a.jsonl", [{"messages": talk} for talk in (short, long, lost, TALK[:1])])
    store = make(tmp_path, tokenizer, data, "sft", length=64)
    assert (store.truncated, store.dropped) == (1, 2)
    ids = [tokenizer.apply_chat_template(talk, tokenize=True, return_dict=False) for talk in (short, long)]
    assert len(ids[0]) < 65 < len(ids[1])
    assert documents(store) == [ids[0], ids[1][:65]]
    with pytest.raises(InputError, match="none of 1 records has an assistant's word within --sequence-length"):
        make(tmp_path, tokenizer, write_lines(tmp_path / "b.jsonl", [{"messages": TALK[:1]}]), "sft")


def test_open_data_gives_rows_of_the_demo_tokenizer_whose_inputs_are_the_text(tmp_path):
    text = demo.evaluation_text()[:20000]
    (tmp_path / "a.txt").write_text(text, "utf-8")
    tokenizer = hf.AutoTokenizer.from_pretrained(demo.MODEL_DIRECTORY)
    rows = open_data(
        str(tmp_path), "pretrain", tokenizer, demo.MODEL_DIRECTORY, vocab_size=4096, sequence_length=128, cache=tmp_path
    )
    inputs = np.concatenate([row["tokens"][row["segment_ids"] > 0] for row in map(rows.__getitem__, range(len(rows)))])
    assert tokenizer.decode(inputs) == text
    with pytest.raises(InputError, match="--sequence-length 0"):
        open_data(str(tmp_path), "pretrain", tokenizer, demo.MODEL_DIRECTORY, 4096, 0, tmp_path)
