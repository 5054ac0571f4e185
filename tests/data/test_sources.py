"""Reading training data: every format gives the same records, and whatever is wrong is named with its place."""

import gzip
import json
import re
import sys
import types
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lesa_jax.base.errors import InputError
from lesa_jax.data.sources import Record, cut_text, find_files, fingerprint, read_records, text_of

TEXTS = ["one", "zwei ü\n", "三"]
LINES = "\n".join(json.dumps({"text": text}) for text in TEXTS) + "\n\n"


def pack(file: Path, content: bytes) -> Path:
    """Writes `content` as two gzip members or zstd frames, or as it is: whatever the name says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    compress = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(file.suffix)
    half = len(content) // 2
    file.write_bytes(compress(content[:half]) + compress(content[half:]) if compress else content)
    return file


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_every_packing_gives_the_same_records(tmp_path, packing):
    lines = pack(tmp_path / f"a.jsonl{packing}", LINES.encode())
    text = pack(tmp_path / f"b.txt{packing}", "\ufeffa ü\r\nb".encode())
    read = []
    records = list(read_records(f"{lines},{text}", read.append))
    assert [record.fields["text"] for record in records] == [*TEXTS, "a ü\nb"]
    assert [record.place for record in records] == [*(f"{lines}:{n}" for n in (1, 2, 3)), str(text)]
    assert sum(read) == lines.stat().st_size + text.stat().st_size


def test_parquet_rows_are_records(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": TEXTS}), file)
    assert [record.fields["text"] for record in read_records(str(file))] == TEXTS
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match="damaged parquet"):
        list(read_records(str(file)))


@pytest.mark.parametrize(("data", "package"), [("{}/a.parquet", "pyarrow"), ("hf://org/name:train", "datasets")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, data, package):
    for module in ("pyarrow", "pyarrow.parquet", "datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "a.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match=f"pip install {package}"):
        list(read_records(data.format(tmp_path)))


def test_a_dataset_of_the_hub_is_streamed_with_its_split(monkeypatch):
    asked = []

    def load_dataset(name, split, streaming):
        asked.append((name, split, streaming))
        if name == "org/none":
            raise FileNotFoundError("no such dataset\nmore")
        return [{"text": "a"}]

    package = types.ModuleType("datasets")
    package.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", package)
    assert list(read_records("hf://org/a:test")) == [Record({"text": "a"}, "hf://org/a:test row 1")]
    list(read_records("hf://org/a"))
    assert asked == [("org/a", "test", True), ("org/a", "train", True)]
    with pytest.raises(InputError, match=r"hf://org/none: cannot be read \(no such dataset\)"):
        list(read_records("hf://org/none"))


def test_a_folder_is_searched_in_order_without_hidden_and_foreign_files(tmp_path):
    for name in ("b/2.txt", "a.jsonl", "b/1.txt.gz", ".hidden/x.txt", "b/.x.txt", "README.md"):
        pack(tmp_path / name, b"x")
    found = [tmp_path / name for name in ("a.jsonl", "b/1.txt.gz", "b/2.txt")]
    assert find_files(str(tmp_path)) == found
    assert find_files(f"{tmp_path}/b/2.txt, {tmp_path}/*.jsonl") == [found[2], found[0]]
    assert find_files(f"{tmp_path}/**/*.txt*") == found[1:]
    comma = pack(tmp_path / "a,b.txt", b"x")
    assert find_files(str(comma)) == [comma]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.txt", "no such file"),
        ("*.txt", "no such file"),
        ("a.csv", "unknown format; known are .txt"),
        ("", "empty"),
    ],
)
def test_a_name_without_data_is_an_error(tmp_path, name, message):
    pack(tmp_path / "a.csv", b"x")
    with pytest.raises(InputError, match=message):
        find_files(f"{tmp_path}/{name}" if name else "")


def test_a_folder_without_data_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no file in this folder is one of .txt"):
        find_files(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b" \n", "holds no data"),
        ("a.jsonl", b"\n", "holds no data"),
        ("a.jsonl.gz", b"", "holds no data"),
        ("a.txt", b"a\xff", "is not UTF-8"),
        ("a.txt", "ü".encode()[:1], "is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text"\n', "a.jsonl:2: is not JSON"),
        ("a.jsonl", b'{"text": "\xff"}', "a.jsonl:1: is not JSON"),
        ("a.jsonl", b'{"text": "\\ud83D\\ude00"}\n{"text": "\\uD83D"}', "a.jsonl:2: is not JSON text"),
        ("a.jsonl", b"\n[1]", "a.jsonl:2: is a JSON list"),
        ("a.jsonl.gz", b"not packed", "damaged .gz"),
        ("a.jsonl.zst", b"not packed", "damaged .zst"),
        ("a.jsonl.gz", gzip.compress(LINES.encode())[:-9], ".gz file ends too early"),
        ("a.txt.zst", zstandard.ZstdCompressor().compress(LINES.encode())[:-2], ".zst file ends too early"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        list(read_records(str(tmp_path / name)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"body": "a", "id": 1}, "f:7: no \"text\" in the record, only 'body', 'id'"), ({"text": ["a"]}, "is a list")],
)
def test_a_record_without_text_says_what_it_has(fields, message):
    with pytest.raises(InputError, match=message):
        text_of(Record(fields, "f:7"))


@given(st.lists(st.text("ab \n.1ü"), max_size=8), st.integers(1, 12))
def test_pieces_are_the_text_and_not_longer_than_asked(chunks, limit):
    pieces = list(cut_text(chunks, limit))
    assert "".join(piece for piece, _ in pieces) == "".join(chunks)
    assert all(0 < len(piece) <= limit for piece, _ in pieces) or not any(chunks)
    assert [last for _, last in pieces] == [False] * (len(pieces) - 1) + [True]


def test_pieces_end_between_words():
    text = "some words. Others, too 12 3\n\n" * 50
    pieces = [piece for piece, _ in cut_text([text], 100)]
    assert len(pieces) > 10
    assert all(re.fullmatch(r"(?s) [a-zA-Z].*[a-zA-Z]", piece) for piece in pieces[1:-1])


def test_a_changed_file_has_another_fingerprint(tmp_path):
    file = pack(tmp_path / "a.txt", b"x")
    before = fingerprint(str(tmp_path))
    assert before == fingerprint(str(tmp_path))
    file.write_bytes(b"xy")
    assert before != fingerprint(str(tmp_path))
