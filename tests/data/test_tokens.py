"""The token cache: the same ids as the tokenizer gives, made once, and found again only for the same data."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import transformers as hf

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.data import make_loader, open_data, tokens
from lesa_jax.data.cutting import Cutter
from lesa_jax.data.sources import find_source
from lesa_jax.data.store import TokenStore, open_store
from lesa_jax.data.tokens import store_key, token_store
from tests.support.tokenizers import CHATML, INST, TALK, small_tokenizer

TEXTS = ["the user", "the good words, 123 and\n\nothers", "ü机"]


def write_lines(file: Path, records: list) -> str:
    file.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return str(file)


def make(
    tmp_path: Path, tokenizer, data: str, stage="pretrain", vocab_size=400, length=64, advance=lambda nbytes: None
) -> TokenStore:
    return token_store(data, stage, tokenizer, tmp_path, vocab_size, length, tmp_path / "cache", advance)


def stores(cache: Path) -> list[Path]:
    """The stores in a cache; nothing but the lock of each lies beside them."""
    visible = [path for path in cache.iterdir() if not path.name.startswith(".")]
    hidden = {path.name for path in cache.iterdir() if path.name.startswith(".")}
    assert all(name.endswith(".lock") for name in hidden)
    return visible


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
    assert len(text) > 10 * Cutter(tokenizer).limit
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
    assert store.tokens.size == store.offsets[-1] == Path(store.tokens.filename).stat().st_size // 2
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
    assert len(stores(tmp_path / "cache")) == 1


def test_a_store_is_made_once_and_again_for_changed_data(tmp_path):
    data = write_lines(tmp_path / "a.jsonl", [{"text": "the user"}])
    read = []
    first = make(tmp_path, small_tokenizer(), data, advance=read.append)
    second = make(tmp_path, small_tokenizer(), data, advance=read.append)
    assert sum(read) == os.path.getsize(data)
    assert documents(first) == documents(second)
    write_lines(tmp_path / "a.jsonl", [{"text": "the other"}])
    assert documents(make(tmp_path, small_tokenizer(), data)) != documents(first)


def test_data_of_the_same_name_size_and_time_are_told_by_their_content(tmp_path):
    data = write_lines(tmp_path / "a.jsonl", [{"text": "the user"}])
    stat = os.stat(data)
    first = make(tmp_path, small_tokenizer(), data)
    write_lines(tmp_path / "a.jsonl", [{"text": "the good"}])
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (os.stat(data).st_size, os.stat(data).st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    second = make(tmp_path, small_tokenizer(), data)
    assert documents(second) != documents(first)
    assert second.digest != first.digest


def test_the_same_tokens_have_the_same_digest_wherever_they_come_from(tmp_path):
    first = make(tmp_path, small_tokenizer(), write_lines(tmp_path / "a.jsonl", [{"text": "the user"}]))
    second = make(tmp_path, small_tokenizer(), write_lines(tmp_path / "b.jsonl", [{"id": 1, "text": "the user"}]))
    assert first.digest == second.digest
    assert len(stores(tmp_path / "cache")) == 2


def test_a_run_does_not_go_on_over_other_data_with_as_many_rows(tmp_path):
    def loader(text):
        data = write_lines(tmp_path / "a.jsonl", [{"text": text}] * 9)
        return make_loader(open_data(data, "pretrain", small_tokenizer(), tmp_path, 400, 4, tmp_path / "cache"), 2, 0)

    with (
        closing(loader("the user")) as begun,
        closing(loader("the good")) as other,
        closing(loader("the user")) as same,
    ):
        next(begun)
        state = begun.get_state()
        same.set_state(state)
        with pytest.raises(InputError, match="has data .*; continue with the data"):
            other.set_state(state)


def test_data_that_change_while_they_are_tokenised_leave_no_store(tmp_path):
    data = write_lines(tmp_path / "a.jsonl", [{"text": "the user " * 900}] * 50)

    def change(nbytes):
        with open(data, "r+b") as file:
            file.seek(-10, os.SEEK_END)
            file.write(b"X")

    with pytest.raises(InputError, match="a.jsonl: changed while it was read"):
        make(tmp_path, small_tokenizer(), data, advance=change)
    assert stores(tmp_path / "cache") == []


def test_the_key_depends_on_all_that_decides_the_tokens(tmp_path):
    data = find_source(write_lines(tmp_path / "a.jsonl", [{"text": "a"}]))
    plain = small_tokenizer(CHATML)
    lower, splitting, bos = small_tokenizer(CHATML), small_tokenizer(CHATML), small_tokenizer(CHATML, bos="<bos>")
    lower.backend_tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    splitting.split_special_tokens = True
    key = store_key(data, "pretrain", plain, 400, 8)
    same = [
        store_key(data, "pretrain", plain, 401, 9),
        store_key(data, "pretrain", small_tokenizer(INST), 400, 8),  # a template decides nothing of a text
        store_key(data, "pretrain", truncating(small_tokenizer(CHATML)), 400, 8),
    ]
    others = [
        *(store_key(data, "pretrain", other, 400, 8) for other in (lower, splitting, bos)),
        store_key(data, "pretrain", small_tokenizer(CHATML, eos="<|im_end|>"), 400, 8),
        store_key(data, "pretrain", plain, 70000, 8),
        store_key(find_source(write_lines(tmp_path / "b.jsonl", [{"text": "b"}])), "pretrain", plain, 400, 8),
        store_key(data, "sft", plain, 400, 8),
        store_key(data, "sft", plain, 400, 9),
        store_key(data, "sft", small_tokenizer(INST), 400, 9),
        store_key(data, "sft", small_tokenizer(CHATML, pad_token="<bos>"), 400, 9),
    ]
    assert {key, *same} == {key}
    assert len({key, *others}) == 1 + len(others)


def truncating(tokenizer):
    """As some tokenizer.json files have it."""
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=5)
    return tokenizer


@pytest.mark.parametrize("version", ["VERSION", "tokenizers"])
def test_another_version_makes_another_store(tmp_path, monkeypatch, version):
    data = find_source(write_lines(tmp_path / "a.jsonl", [{"text": "a"}]))
    before = store_key(data, "pretrain", small_tokenizer(), 400, 8)
    place, name = (tokens, "VERSION") if version == "VERSION" else (tokenizers, "__version__")
    monkeypatch.setattr(place, name, "other")
    assert store_key(data, "pretrain", small_tokenizer(), 400, 8) != before


def test_a_tokenizer_that_lacks_the_letter_a_has_its_edges_nonetheless(tmp_path):
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"<s>": 0, "</s>": 1, "x": 2, "y": 3}, []))
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    data = write_lines(tmp_path / "a.jsonl", [{"text": "xy"}, {"text": "yyx"}, {"text": "abc"}])
    store = make(tmp_path, hf.PreTrainedTokenizerFast(tokenizer_object=backend), data)
    assert documents(store) == [[0, 2, 3, 1], [0, 3, 3, 2, 1], [0, 1]]


def test_a_tokenizer_that_knows_nothing_is_said_in_one_line(tmp_path):
    data = write_lines(tmp_path / "a.jsonl", [{"text": "a b"}])
    nothing = tokenizers.Tokenizer(tokenizers.models.BPE({}, []))
    with pytest.raises(InputError, match="none of 1 records has two tokens of text"):
        make(tmp_path, hf.PreTrainedTokenizerFast(tokenizer_object=nothing), data)
    failing = tokenizers.Tokenizer(tokenizers.models.WordPiece({"a": 0}, unk_token="[UNK]"))
    with pytest.raises(InputError, match=r"its tokenizer cannot tokenise the data \(.*UNK.*\); repair or replace it"):
        make(tmp_path, hf.PreTrainedTokenizerFast(tokenizer_object=failing), data)


@pytest.mark.parametrize("texts", [[""], ["a"], [" \n "], ["\u200b"], ["", "a", "\n"]])
def test_texts_of_which_nothing_can_be_learned_are_said_in_one_line(tmp_path, texts):
    data = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    with pytest.raises(InputError, match=f"none of {len(texts)} records has two tokens of text") as raised:
        make(tmp_path, hf.PreTrainedTokenizerFast(tokenizer_object=backend), data)
    assert "\n" not in str(raised.value)


def test_failures_leave_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="a.jsonl:2"):
        make(tmp_path, small_tokenizer(), write_lines(tmp_path / "a.jsonl", [{"text": "a b"}, {}]))
    assert stores(tmp_path / "cache") == []


def test_of_two_that_make_the_same_store_one_waits_for_the_other(tmp_path, capsys):
    data = write_lines(tmp_path / "a.jsonl", [{"text": "the user"}])
    done: list[int] = []

    with ThreadPoolExecutor(1) as threads:
        others = []

        def other(nbytes: int) -> None:
            if not others:
                others.append(threads.submit(make, tmp_path, small_tokenizer(), data, advance=done.append))
                while "waiting for another process, which tokenises the same data" not in capsys.readouterr().err:
                    time.sleep(0.01)

        mine = make(tmp_path, small_tokenizer(), data, advance=other)
        assert others[0].result().digest == mine.digest
    assert done == []
    assert len(stores(tmp_path / "cache")) == 1


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.bin", "mask.bin", "store.json"])
@pytest.mark.parametrize("damage", ["shorter", "longer", "another byte", "gone", "a folder"])
def test_a_damaged_store_is_named(tmp_path, name, damage):
    data = write_lines(tmp_path / "a.jsonl", [{"messages": TALK}])
    make(tmp_path, small_tokenizer(INST), data, "sft", length=200)
    [folder] = stores(tmp_path / "cache")
    file = folder / name
    content = file.read_bytes()
    file.unlink()
    match damage:
        case "shorter":
            file.write_bytes(content[:-3])
        case "longer":
            file.write_bytes(content + b"x")
        case "another byte":
            file.write_bytes(content[:5] + bytes([content[5] ^ 1]) + content[6:])
        case "a folder":
            file.mkdir()
    with pytest.raises(InputError, match=f"{folder.name}: damaged token cache .*; remove this folder$") as raised:
        make(tmp_path, small_tokenizer(INST), data, "sft", length=200)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["[]", "{}", '{"largest": 1, "dtype": "x", "tokens": -1}', "null"])
def test_a_store_of_something_else_is_named(tmp_path, content):
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(InputError, match="damaged token cache .*; remove this folder"):
        open_store(tmp_path, 400)


def test_a_cache_with_a_name_that_no_disk_allows_is_named(tmp_path):
    data = write_lines(tmp_path / "a.jsonl", [{"text": "the user"}])
    with pytest.raises(InputError, match="cannot write tokens there"):
        token_store(data, "pretrain", small_tokenizer(), tmp_path, 400, 8, tmp_path / ("n" * 300))
    assert len(token_store(data, "pretrain", small_tokenizer(), tmp_path, 400, 8, tmp_path / ("n" * 250)).tokens) > 1


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
