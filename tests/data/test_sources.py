"""Reading training data: every format gives the same records, and whatever is wrong is named with its place."""

import gzip
import itertools
import json
import os
import random
import re
import sys
import time
import types
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lesa_jax.base.errors import InputError
from lesa_jax.data import streams
from lesa_jax.data.sources import Record, find_files, find_source, read_records, text_of

TEXTS = ["one", "zwei ü\n", "三"]
LINES = "\n".join(json.dumps({"text": text}) for text in TEXTS) + "\n\n"


def read(data: str, advance=lambda nbytes: None) -> list[Record]:
    return list(read_records(find_source(data), advance))


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
    hashed, done = [], []
    source = find_source(f"{lines},{text}", hashed.append)
    records = list(read_records(source, done.append))
    assert [record.fields["text"] for record in records[:3]] == TEXTS
    assert "".join(record.fields["text"] for record in records[3:]) == "a ü\nb"
    assert [record.place for record in records[:3]] == [f"{lines}:{n}" for n in (1, 2, 3)]
    assert {record.place for record in records[3:]} == {str(text)}
    assert [record.starts for record in records[3:]] == [True] + [False] * len(records[4:])
    assert [record.ends for record in records[3:]] == [False] * len(records[4:]) + [True]
    assert sum(done) == sum(hashed) == lines.stat().st_size + text.stat().st_size


def test_parquet_rows_are_records(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": TEXTS}), file)
    assert [record.fields["text"] for record in read(str(file))] == TEXTS
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match="damaged parquet"):
        read(str(file))


@pytest.mark.parametrize(("data", "package"), [("{}/a.parquet", "pyarrow"), ("hf://org/name:train", "datasets")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, data, package):
    for module in ("pyarrow", "pyarrow.parquet", "datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "a.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match=f"pip install {package}"):
        read(data.format(tmp_path))


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub and for `datasets`, which is not installed; what was asked of it, and its commits."""
    commits, asked = {"org/a": "1" * 40, "org/none": "2" * 40}, []

    def dataset_info(self, name, revision=None):
        if name not in commits:
            raise ConnectionError("no network\nmore")
        return types.SimpleNamespace(sha=commits[name] if revision is None else "3" * 40)

    def load_dataset(name, split, streaming, revision):
        asked.append((name, split, streaming, revision))
        if name == "org/none":
            raise FileNotFoundError("no such dataset\nmore")
        return [{"text": "a"}]

    package = types.ModuleType("datasets")
    package.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", package)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    return commits, asked


def test_a_dataset_of_the_hub_is_streamed_at_its_commit(hub):
    commits, asked = hub
    assert read("hf://org/a:test") == [Record({"text": "a"}, "hf://org/a:test row 1")]
    for data in ("hf://org/a", "hf://org/a@v2:x", f"hf://org/a@{'4' * 40}"):
        read(data)
    assert asked == [
        *(("org/a", "test", True, "1" * 40), ("org/a", "train", True, "1" * 40)),
        *(("org/a", "x", True, "3" * 40), ("org/a", "train", True, "4" * 40)),
    ]
    before = find_source("hf://org/a").identity
    assert find_source("hf://org/a").identity == before
    commits["org/a"] = "5" * 40
    assert find_source("hf://org/a").identity != before


def test_a_dataset_that_cannot_be_pinned_or_read_is_named(hub):
    with pytest.raises(InputError, match=r"hf://org/none: cannot be read \(no such dataset\)"):
        read("hf://org/none")
    with pytest.raises(InputError, match=r"cannot be asked for \(no network\).*name the commit: hf://org/b@COMMIT"):
        read("hf://org/b")
    assert read(f"hf://org/b@{'4' * 40}")
    for data in ("hf://", "hf://a@", "hf://a:", "hf://@x"):
        with pytest.raises(InputError, match="expected hf://NAME"):
            read(data)


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
        ("a.jsonl", b"\n[1]", "a.jsonl:2: a JSON array; expected one JSON object a line"),
        ("a.txt", "ab".encode("utf-16-le"), "a.txt: holds NUL bytes; expected a text file"),
        ("a.jsonl.gz", b"not packed", "damaged .gz"),
        ("a.jsonl.zst", b"not packed", "damaged .zst"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], ".gz file ends too early"),
        ("a.txt.zst", zstandard.ZstdCompressor().compress(LINES.encode())[:-2], ".zst file ends too early"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        read(str(tmp_path / name))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"body": "a", "id": 1}, "f:7: no \"text\" in the record, only 'body', 'id'"), ({"text": ["a"]}, "is a list")],
)
def test_a_record_without_text_says_what_it_has(fields, message):
    with pytest.raises(InputError, match=message):
        text_of(Record(fields, "f:7"))


def test_data_are_known_by_content_not_by_name_or_time(tmp_path):
    file = pack(tmp_path / "a.txt", b"x")
    before, stat = find_source(str(tmp_path)).identity, file.stat()
    file.write_bytes(b"y")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert find_source(str(tmp_path)).identity != before
    file.write_bytes(b"x")
    assert find_source(str(file.rename(tmp_path / "b.txt"))).identity == before
    assert find_source(f"{tmp_path},{tmp_path}").identity == [*before, *before]
    (tmp_path / "b.txt").rename(tmp_path / "b.jsonl")
    assert find_source(str(tmp_path)).identity != before


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.zst", "a.parquet"])
def test_data_that_change_before_they_are_read_are_refused(tmp_path, name):
    def content(text):
        if name.endswith(".parquet"):
            pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            parquet.write_table(pyarrow.table({"text": [text]}), tmp_path / name)
        else:
            pack(tmp_path / name, f'{{"text": "{text}"}}'.encode())

    content("one")
    source = find_source(str(tmp_path / name))
    assert list(read_records(source))
    content("two")
    with pytest.raises(InputError, match=f"{name}: changed while it was read"):
        list(read_records(source))


def test_names_longer_than_a_disk_allows_are_no_such_file(tmp_path):
    for name in ("n" * 300, "n" * 250 + ".txt", "a\0b"):
        with pytest.raises(InputError, match="no such file"):
            find_files(f"{tmp_path}/{name}")
    file = pack(tmp_path / ("n" * 250 + ".txt"), b"x")
    assert find_files(str(file)) == find_files(str(tmp_path)) == [file]


def test_a_data_file_that_cannot_be_read_is_not_left_out_in_silence(tmp_path):
    pack(tmp_path / "a.txt", b"x")
    (tmp_path / "b.txt").symlink_to("none")
    with pytest.raises(InputError, match="b.txt: is not a file, or links to none"):
        find_files(str(tmp_path))


def test_a_line_of_any_length_is_read_once(monkeypatch):
    """Bytes are joined once for a line, not once for a chunk: 64 MB took seconds."""
    line = b'{"text": "' + b"a" * (64 << 20) + b'"}'
    chunks = [line[i : i + streams.READ] for i in range(0, len(line), streams.READ)]
    started = time.process_time()
    assert list(streams.objects(Path("f"), [*chunks, b"\n", *chunks])) == [("f:1", line), ("f:2", line)]
    assert time.process_time() - started < 3


@pytest.mark.parametrize("start", [b"[", b" [", "\ufeff[".encode(), b'[{"text"', b'"text', b"text", b"3", b"\x89PNG"])
@pytest.mark.parametrize("before", [b"", b"\n", b'{"text": "a"}\n'])
def test_what_is_no_object_is_refused_at_its_first_bytes(start, before):
    if start.startswith(b"\xef"):
        before = b""

    def endless():
        yield before + start
        yield b"x" * 100
        raise AssertionError("read on")

    number = 1 + before.count(b"\n")
    expected = "a JSON array.*jq -c" if b"[" in start else "is not JSON text that begins with {"
    with pytest.raises(InputError, match=f"f:{number}: {expected}"):
        list(streams.objects(Path("f"), endless()))


def test_a_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(streams, "LONGEST_LINE", 10**6)
    chunks = itertools.chain([b'{"a": 1}\n{"text": "'], itertools.repeat(b"a" * 1000))
    with pytest.raises(InputError, match="f:2: a line of more than 1.0 MB; expected one JSON object a line"):
        list(streams.objects(Path("f"), chunks))


def test_an_object_over_several_lines_is_refused_at_its_first_line(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a"}, indent=1))
    with pytest.raises(InputError, match="a.jsonl:1: is not JSON text .*expected one JSON object a line"):
        read(str(tmp_path / "a.jsonl"))


@given(
    st.lists(st.sampled_from([b"{", b"}", b"\n", b" ", b"\r\n", b'{"a": 1}', b"\xef\xbb\xbf"]), max_size=30), st.data()
)
def test_lines_do_not_depend_on_how_the_bytes_come(parts, data):
    content = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=9)))
    chunks = [content[a:b] for a, b in itertools.pairwise([0, *cuts, len(content)])]

    def lines(chunks):
        try:
            return list(streams.objects(Path("f"), chunks))
        except InputError as error:
            return str(error)

    assert lines(chunks) == lines([content])


@pytest.mark.parametrize(("suffix", "most"), [(".gz", 1 << 19), (".zst", 1 << 24)])
def test_a_small_file_that_unpacks_to_much_comes_in_small_parts(tmp_path, suffix, most):
    compress = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor(level=19).compress
    member = compress(b"a" * (64 << 20))
    file = tmp_path / f"a.txt{suffix}"
    file.write_bytes(member + compress(b"b") + member)
    assert file.stat().st_size < 200_000
    longest = total = 0
    for record in read_records(find_source(str(file))):
        longest, total = max(longest, len(record.fields["text"])), total + len(record.fields["text"])
    assert total == 2 * (64 << 20) + 1
    assert longest <= most


def test_zstd_frames_without_content_are_passed_over(tmp_path):
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"index"
    frame = zstandard.ZstdCompressor().compress
    (tmp_path / "a.txt.zst").write_bytes(skippable + frame(b"a") + frame(b"") + skippable + frame(b"b") + skippable)
    assert "".join(record.fields["text"] for record in read(str(tmp_path / "a.txt.zst"))) == "ab"


def test_a_damaged_parquet_file_is_said_in_one_line(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": TEXTS * 50, "n": list(range(150))}), tmp_path / "whole.parquet")
    whole, rng = (tmp_path / "whole.parquet").read_bytes(), random.Random(0)
    damaged = [whole[: rng.randrange(len(whole))] for _ in range(10)]
    for _ in range(40):
        content = bytearray(whole)
        for _ in range(4):
            content[rng.randrange(len(content))] = rng.randrange(256)
        damaged.append(bytes(content))
    refusals = []
    for content in damaged:
        (tmp_path / "a.parquet").write_bytes(content)
        try:
            read(str(tmp_path / "a.parquet"))
        except InputError as error:
            refusals.append(str(error))
    assert len(refusals) > 20
    assert not any("\n" in refusal for refusal in refusals)
