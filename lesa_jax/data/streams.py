"""The bytes of a data file, unpacked, and its lines; in memory is a bounded part of it, whatever it holds."""

import codecs
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from lesa_jax.base.errors import InputError
from lesa_jax.base.units import format_bytes

READ = 1 << 18  # bytes read from a file at once
SLICE = 1 << 8  # packed bytes unpacked at once: zstd makes at most 32,768 bytes of one, which are 8 MiB then
FIRST = 64  # bytes of a line that tell whether it begins an object
LONGEST_LINE = 1 << 30  # bytes; a line is in memory several times over while it is read


def unpacked(file: Path, digest: str, advance: Callable[[int], None]) -> Iterator[bytes]:
    """The file's bytes, those of .gz and .zst unpacked.

    Args:
      file: the file.
      digest: SHA-256 of the file as it must be.
      advance: called with the number of bytes just read from it.

    Raises InputError, at the end, if the file is not what it was when its digest was taken.
    """
    chunks = _chunks(file, digest, advance)
    match file.suffix.lower():
        case ".gz":
            return _unpack(file, chunks, lambda: zlib.decompressobj(wbits=31))
        case ".zst":
            return _unpack(file, chunks, lambda: zstandard.ZstdDecompressor().decompressobj())
        case _:
            return chunks


def _chunks(file: Path, digest: str, advance: Callable[[int], None]) -> Iterator[bytes]:
    total = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(READ):
                total.update(chunk)
                yield chunk
                advance(len(chunk))
    except OSError as error:
        raise InputError(f"--data {file}: cannot be read ({error.strerror}); check its permissions") from None
    check_unchanged(file, digest, total.hexdigest())


def check_unchanged(file: Path, before: str, now: str) -> None:
    """Refuses a file that was written to while it was tokenised."""
    if before != now:
        raise InputError(f"--data {file}: changed while it was read; wait until it is written, then try again")


def _unpack(file: Path, chunks: Iterable[bytes], decompressor: Callable[[], Any]) -> Iterator[bytes]:
    """Unpacks gzip members or zstd frames; a file may hold several, one after the other."""
    current = None
    try:
        for chunk in chunks:
            for start in range(0, len(chunk), SLICE):
                packed = chunk[start : start + SLICE]
                while packed:
                    current = decompressor() if current is None or current.eof else current
                    yield current.decompress(packed)
                    packed = current.unused_data if current.eof else b""
    except (zlib.error, zstandard.ZstdError) as error:
        raise InputError(f"--data {file}: damaged {file.suffix} file ({error}); make or download it again") from None
    if current is not None and not current.eof:
        raise InputError(f"--data {file}: {file.suffix} file ends too early; make or download it again")


def objects(file: Path, chunks: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """The lines of a .jsonl file that are not blank, each with its place, `file:line`.

    What is no object is refused at its first bytes: a JSON array of all records may be one line of any length.

    Raises InputError for such a line, and for one that is too long.
    """
    number, parts, size, begun = 1, [], 0, False
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        parts.append(first)
        size += len(first)
        for other in others:
            if line := _object(file, number, parts):
                yield f"{file}:{number}", line
            number, parts, size, begun = number + 1, [other], len(other), False
        if size >= FIRST and not begun:
            parts = [_object(file, number, parts)]
            begun = bool(parts[0])
        if size > LONGEST_LINE:
            most = format_bytes(LONGEST_LINE)
            raise InputError(f"{file}:{number}: a line of more than {most}; expected one JSON object a line, split it")
    if line := _object(file, number, parts):
        yield f"{file}:{number}", line


def _object(file: Path, number: int, parts: Iterable[bytes]) -> bytes:
    """The parts of a line, or of its beginning, without white space around them; refused if they begin no object."""
    line = b"".join(parts)
    line = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
    if line[:1] == b"[":
        raise InputError(f"{file}:{number}: a JSON array; expected one JSON object a line, as jq -c '.[]' writes")
    if line and line[:1] != b"{":
        raise InputError(f"{file}:{number}: is not JSON text that begins with {{; expected one JSON object a line")
    return line
