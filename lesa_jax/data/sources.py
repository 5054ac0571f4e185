"""Training data as it lies on the disk: which files, and the records in them.

Formats go by the file's name: .txt (one document a file) and .jsonl (one JSON object a line), both also as .gz and
.zst, .parquet (one record a row), and `hf://NAME[@REVISION][:SPLIT]` for a dataset of the hub. Everything is streamed.
"""

import codecs
import glob
import importlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lesa_jax.base.digests import digest_each, digest_file
from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import listed
from lesa_jax.data.hub import HUB, commit_of, hub_rows
from lesa_jax.data.streams import check_unchanged, objects, unpacked

PART = re.compile(r"(?P<data>.+):(?P<share>[0-9.]+(?:e-?[0-9]+)?)", re.IGNORECASE)  # of a mixture
FORMATS = (".txt", ".txt.gz", ".txt.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


@dataclass(frozen=True)
class Source:
    """What `--data` names, and which bytes it is.

    Attributes:
      data: as given.
      files: in the order in which they are read; none for a dataset of the hub.
      digests: SHA-256 of each file; for a dataset of the hub its commit.
    """

    data: str
    files: Sequence[Path]
    digests: Sequence[str]

    @property
    def identity(self) -> Sequence[Sequence[str | None]]:
        """All of it that decides the records: contents with their formats, never names. For JSON."""
        if not self.files:
            return [[self.data, *self.digests]]
        return [[format_of(file), digest] for file, digest in zip(self.files, self.digests, strict=True)]


@dataclass(frozen=True)
class Record:
    """One record of the data.

    Attributes:
      fields: the record as it was read.
      place: `file:line` or `file`, for messages.
      starts, ends: whether it holds its document's beginning and end; a .txt file comes as several records.
    """

    fields: Mapping[str, Any]
    place: str
    starts: bool = True
    ends: bool = True


def split_shares(data: str) -> list[tuple[str, float]]:
    """The parts that `--data` names, each with its share; a data without shares is one part.

    Raises:
      InputError: some parts have a share and others none, or one is not positive.
    """
    whole = [(data, 1.0)]
    if os.path.exists(data):
        return whole
    words = listed(data)
    found = [None if os.path.exists(word) else PART.fullmatch(word) for word in words]
    if not any(found):
        return whole
    parts = []
    for word, match in zip(words, found, strict=True):
        if match is None:
            raise InputError(f"--data {word}: has no share; give each part one, as in new.jsonl:0.9,old.jsonl:0.1")
        try:
            share = float(match["share"])
        except ValueError:
            share = math.nan
        if not 0 < share < math.inf:
            raise InputError(f"--data {word}: a share is a positive number, as in new.jsonl:0.9,old.jsonl:0.1")
        parts.append((match["data"], share))
    return parts


def find_files(data: str) -> list[Path]:
    """The files that `--data` names: a file, a folder, a glob, or several of them separated by commas; none of the hub.

    In a folder files are searched at any depth and sorted; hidden ones and those of other formats are passed over. A
    file that is named twice is read twice.

    Raises InputError where a name matches nothing, or matches a file of an unknown format.
    """
    files = []
    for part, _ in split_shares(data):
        names = [part] if os.path.exists(part) or part.startswith(HUB) else listed(part)
        if not names:
            raise InputError("--data is empty; give a file, a folder or a glob")
        files += [file for name in names if not name.startswith(HUB) for file in _matches(name)]
    return files


def find_source(data: str, advance: Callable[[int], None] = lambda nbytes: None) -> Source:
    """Reads all files of `--data` once, at the speed of the disk, or asks the hub.

    Args:
      data: as `find_files` takes it, or hf://NAME[@REVISION][:SPLIT].
      advance: called, from several threads, with the number of bytes just read.

    Raises InputError for what cannot be found or read.
    """
    if data.startswith(HUB):
        _optional("datasets", "datasets", data)
        return Source(data, [], [commit_of(data)])
    files = find_files(data)
    digests = digest_each(files, advance)
    return Source(data, files, [digests[file] for file in files])


def _matches(name: str) -> list[Path]:
    if os.path.isdir(name):
        files = sorted(_inside(Path(name)))
        if not files:
            raise InputError(f"--data {name}: no file in this folder is one of {', '.join(FORMATS)}; name another one")
        return files
    found = [name] if os.path.isfile(name) else sorted(filter(os.path.isfile, glob.glob(name, recursive=True)))
    files = [Path(file) for file in found]
    if not files:
        raise InputError(f"--data {name}: no such file; give a file, a folder, a glob, or hf://NAME[:SPLIT]")
    for file in files:
        if not format_of(file):
            raise InputError(f"--data {file}: unknown format; known are {', '.join(FORMATS)}, by the file's name")
    return files


def _inside(folder: Path) -> Iterator[Path]:
    """The data files at any depth of a folder; what looks like one and cannot be read is not left out in silence."""

    def refuse(error: OSError) -> None:
        raise InputError(f"--data {error.filename}: cannot be read ({error.strerror}); check its permissions")

    for here, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in (Path(here, name) for name in names if not name.startswith(".")):
            if format_of(file):
                if not file.is_file():
                    raise InputError(f"--data {file}: is not a file, or links to none; remove or repair it")
                yield file


def format_of(file: Path) -> str | None:
    """The one of FORMATS that the file's name ends in."""
    return next((suffix for suffix in FORMATS if file.name.lower().endswith(suffix)), None)


def read_records(source: Source, advance: Callable[[int], None] = lambda nbytes: None) -> Iterator[Record]:
    """All records, in order. `advance` is called with the number of bytes just read from the files.

    Raises InputError, while the records are read, for what cannot be read; file and line are named. Also for a file
    that is not what it was when the source was found.
    """
    if not source.files:
        datasets = _optional("datasets", "datasets", source.data)
        for number, fields in enumerate(hub_rows(source.data, source.digests[0], datasets), 1):
            yield Record(fields, f"{source.data} row {number}")
    for file, digest in zip(source.files, source.digests, strict=False):
        found = False
        for record in _file_records(file, digest, advance):
            found = True
            yield record
        if not found:
            raise InputError(f"--data {file}: holds no data; remove it or name other files")


def _file_records(file: Path, digest: str, advance: Callable[[int], None]) -> Iterator[Record]:
    kind = format_of(file) or ""
    if kind == ".parquet":
        return _parquet_records(file, digest, advance)
    chunks = unpacked(file, digest, advance)
    return _text_records(file, chunks) if kind.startswith(".txt") else _json_records(file, chunks)


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


def _text_records(file: Path, chunks: Iterator[bytes]) -> Iterator[Record]:
    """A text file as one document, in as many records as come; line ends become \\n."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    starts, blank = True, True
    try:
        for chunk in chunks:
            text = decoder.decode(chunk)
            if "\0" in text:
                raise InputError(f"--data {file}: holds NUL bytes; expected a text file, convert UTF-16 to UTF-8")
            blank = blank and not text.strip()
            yield Record({"text": text}, str(file), starts, ends=False)
            starts = False
        text = decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise InputError(f"--data {file}: is not UTF-8 text ({error.reason}); convert it to UTF-8") from None
    if blank and not text.strip():
        raise InputError(f"--data {file}: holds no data; remove it or name other files")
    yield Record({"text": text}, str(file), starts)


def _json_records(file: Path, chunks: Iterator[bytes]) -> Iterator[Record]:
    for place, line in objects(file, chunks):
        try:
            fields = json.loads(line)
            if b"\\ud" in line.lower():  # half of a surrogate pair is valid JSON, but no text that can be tokenised
                json.dumps(fields, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: is not JSON text ({error}); expected one JSON object a line") from None
        yield Record(fields, place)


def _parquet_records(file: Path, digest: str, advance: Callable[[int], None]) -> Iterator[Record]:
    parquet = _optional("pyarrow.parquet", "pyarrow", file)
    number = 0
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=256):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(fields, f"{file}:{number}")
    except Exception as error:  # pyarrow's kinds are those of the standard library and its own, without a common name
        reason = str(error).split("\n")[0]
        raise InputError(f"--data {file}: damaged parquet file ({reason}); make or download it again") from None
    check_unchanged(file, digest, digest_file(file, advance))  # pyarrow reads here and there, not from end to end


def _optional(module: str, package: str, wanted_by: Path | str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"--data {wanted_by}: needs a package that is missing: pip install {package}") from None
