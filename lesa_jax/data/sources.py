"""Training data as it lies on the disk: which files, and the records in them.

Formats go by the file's name: .txt (one document a file) and .jsonl (one JSON object a line), both also as .gz and
.zst, .parquet (one record a row), and `hf://NAME[:SPLIT]` for a dataset of the hub. Everything is streamed.
"""

import codecs
import glob
import importlib
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import zstandard

from lesa_jax.base.errors import InputError

HUB = "hf://"
FORMATS = (".txt", ".txt.gz", ".txt.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
READ = 1 << 18  # bytes read from a file at once
PIECE = 1 << 14  # characters of a text that are handled at once: pre-tokenizers take longer per character of a long one

# Where a text may be cut, best first. Between two words: every pre-tokenizer in use begins a new token at a space after
# a letter, and none puts a stray space in front of a piece that begins with one. Then: before other white space, which
# may give a tokenizer with a prefix space one token more.
CUTS = (re.compile(r"(?<=[^\W\d_])(?= [^\W\d_])"), re.compile(r"(?<=[^\W\d_])(?=\s)"))


@dataclass(frozen=True)
class Record:
    """One record of the data.

    Attributes:
      fields: the record as it was read.
      place: `file:line` or `file`, for messages.
      starts, ends: whether it holds its document's beginning and end; a long .txt file comes as several records.
    """

    fields: Mapping[str, Any]
    place: str
    starts: bool = True
    ends: bool = True


def find_files(data: str) -> list[Path]:
    """The files that `--data` names: a file, a folder, a glob, or several of them separated by commas.

    In a folder files are searched at any depth and sorted; hidden ones and those of other formats are passed over. A
    file that is named twice is read twice.

    Raises InputError where a name matches nothing, or matches a file of an unknown format.
    """
    names = [data] if os.path.exists(data) else [name.strip() for name in data.split(",") if name.strip()]
    if not names:
        raise InputError("--data is empty; give a file, a folder or a glob")
    return [file for name in names for file in _matches(name)]


def _matches(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        inside = (file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
        files = sorted(file for file in inside if format_of(file))
        if not files:
            raise InputError(f"--data {name}: no file in this folder is one of {', '.join(FORMATS)}; name another one")
        return files
    files = [path] if path.is_file() else sorted(Path(f) for f in glob.glob(name, recursive=True) if Path(f).is_file())
    if not files:
        raise InputError(f"--data {name}: no such file; give a file, a folder, a glob, or hf://NAME[:SPLIT]")
    for file in files:
        if not format_of(file):
            raise InputError(f"--data {file}: unknown format; known are {', '.join(FORMATS)}, by the file's name")
    return files


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def format_of(file: Path) -> str | None:
    """The one of FORMATS that the file's name ends in."""
    return next((suffix for suffix in FORMATS if file.name.lower().endswith(suffix)), None)


def read_records(data: str, advance: Callable[[int], None] = lambda nbytes: None) -> Iterator[Record]:
    """All records of `--data`, in order. `advance` is called with the number of bytes just read from the files.

    Raises InputError, while the records are read, for what cannot be read; file and line are named.
    """
    if data.startswith(HUB):
        yield from _hub_records(data)
        return
    for file in find_files(data):
        found = False
        for record in _file_records(file, advance):
            found = True
            yield record
        if not found:
            raise InputError(f"--data {file}: holds no data; remove it or name other files")


def _file_records(file: Path, advance: Callable[[int], None]) -> Iterator[Record]:
    kind = format_of(file)
    if kind == ".parquet":
        return _parquet_records(file, advance)
    return _text_record(file, advance) if kind and kind.startswith(".txt") else _json_records(file, advance)


def text_of(record: Record) -> str:
    """The record's text. Raises InputError where it has none."""
    text = record.fields.get("text")
    if isinstance(text, str):
        return text
    if text is None:
        raise InputError(f'{record.place}: no "text" in the record, only {field_names(record)}; rename its text field')
    raise InputError(f'{record.place}: "text" is a {type(text).__name__}; expected a string')


def field_names(record: Record) -> str:
    return ", ".join(map(repr, record.fields)) or "no field at all"


def cut_text(chunks: Iterable[str], limit: int = PIECE) -> Iterator[tuple[str, bool]]:
    """A text, given in any chunks, as pieces of at most `limit` characters, and whether each is the last one.

    Pieces are cut where every tokenizer of the byte-level BPE family begins a new token (`CUTS`), so that their tokens
    are those of the whole text. Only a piece without any such place is cut at the limit.
    """
    pending = ""
    for chunk in chunks:
        for start in range(0, len(chunk), limit):
            pending += chunk[start : start + limit]
            while len(pending) > limit:
                cut = _place_to_cut(pending, limit)
                yield pending[:cut], False
                pending = pending[cut:]
    yield pending, True


def _place_to_cut(text: str, limit: int) -> int:
    for reach in (1 << 8, limit):  # near the limit there is nearly always one, and a short search is a fast one
        for pattern in CUTS:
            places = [match.start() for match in pattern.finditer(text, max(1, limit - reach), limit + 1)]
            if places:
                return places[-1]
    return limit


def _text_record(file: Path, advance: Callable[[int], None]) -> Iterator[Record]:
    """A text file as one document; line ends become \\n."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)

    def decoded() -> Iterator[str]:
        for chunk in _chunks(file, advance):
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)

    starts = True
    try:
        for piece, ends in cut_text(decoded()):
            if starts and ends and not piece.strip():
                return
            yield Record({"text": piece}, str(file), starts, ends)
            starts = False
    except UnicodeDecodeError as error:
        raise InputError(f"--data {file}: is not UTF-8 text ({error.reason}); convert it to UTF-8") from None


def _json_records(file: Path, advance: Callable[[int], None]) -> Iterator[Record]:
    for number, line in enumerate(_lines(_chunks(file, advance)), 1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            fields = json.loads(line)
            if b"\\ud" in line.lower():  # half of a surrogate pair is valid JSON, but no text that can be tokenised
                json.dumps(fields, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: is not JSON text ({error}); expected one JSON object a line") from None
        if not isinstance(fields, dict):
            raise InputError(f"{place}: is a JSON {type(fields).__name__}; expected one JSON object a line")
        yield Record(fields, place)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _chunks(file: Path, advance: Callable[[int], None]) -> Iterator[bytes]:
    """The file's bytes, unpacked."""
    chunks = _raw_chunks(file, advance)
    match file.suffix.lower():
        case ".gz":
            return _unpacked(file, chunks, lambda: zlib.decompressobj(wbits=31))
        case ".zst":
            return _unpacked(file, chunks, lambda: zstandard.ZstdDecompressor().decompressobj())
        case _:
            return chunks


def _raw_chunks(file: Path, advance: Callable[[int], None]) -> Iterator[bytes]:
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(READ):
                yield chunk
                advance(len(chunk))
    except OSError as error:
        raise InputError(f"--data {file}: cannot be read ({error.strerror}); check its permissions") from None


def _unpacked(file: Path, chunks: Iterable[bytes], decompressor: Callable[[], Any]) -> Iterator[bytes]:
    """Unpacks gzip members or zstd frames; a file may hold several, one after the other."""
    current = None
    try:
        for packed in chunks:
            while packed:
                current = decompressor() if current is None or current.eof else current
                yield current.decompress(packed)
                packed = current.unused_data if current.eof else b""
    except (zlib.error, zstandard.ZstdError) as error:
        raise InputError(f"--data {file}: damaged {file.suffix} file ({error}); make or download it again") from None
    if current is not None and not current.eof:
        raise InputError(f"--data {file}: {file.suffix} file ends too early; make or download it again")


def _parquet_records(file: Path, advance: Callable[[int], None]) -> Iterator[Record]:
    parquet = _optional("pyarrow.parquet", "pyarrow", file)
    number = 0
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=256):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(fields, f"{file}:{number}")
    except (OSError, ValueError) as error:
        raise InputError(f"--data {file}: damaged parquet file ({_line(error)}); make or download it again") from None
    advance(file.stat().st_size)


def _hub_records(data: str) -> Iterator[Record]:
    name, _, split = data.removeprefix(HUB).partition(":")
    datasets = _optional("datasets", "datasets", data)
    try:
        rows = datasets.load_dataset(name, split=split or "train", streaming=True)
        for number, fields in enumerate(rows, 1):
            yield Record(fields, f"{data} row {number}")
    except (OSError, ValueError) as error:
        raise InputError(f"--data {data}: cannot be read ({_line(error)}); check its name and split") from None


def _optional(module: str, package: str, wanted_by: Path | str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"--data {wanted_by}: needs a package that is missing: pip install {package}") from None


def _line(error: Exception) -> str:
    return str(error).split("\n")[0]


def fingerprint(data: str) -> Sequence[tuple[str, int, int]]:
    """What tells changed data from unchanged data: absolute name, bytes and time of change (ns) of every file.

    A dataset of the hub is told by its name alone.
    """
    if data.startswith(HUB):
        return [(data, 0, 0)]
    stats = [(file.absolute(), file.stat()) for file in find_files(data)]
    return [(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats]
