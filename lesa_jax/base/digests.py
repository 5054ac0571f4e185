"""SHA-256 of what results depend on, so that nothing measured is ever taken for something else.

What is kept for later (tokens, rows of a table, the state of a run) keeps the digest of all that it was made from, and
is used only where that is still the same. By content, never by name or time.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError

READ = 1 << 20  # bytes at once

Stamp = tuple[int, int, int, int, int]


def digest(value: Any) -> str:
    """Of a JSON value; the order of an object's keys does not count."""
    return digest_bytes(json.dumps(value, sort_keys=True).encode())


def digest_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path, advance: Callable[[int], None] = lambda nbytes: None) -> str:
    """Of a file's bytes: what `sha256sum` and the Hugging Face hub show.

    Args:
      path: the file.
      advance: called with the number of bytes just read.

    Raises:
      InputError: it cannot be read, or changes meanwhile.
    """
    total, buffer = hashlib.sha256(), bytearray(READ)
    try:
        with path.open("rb", buffering=0) as file:
            before = stamp(os.fstat(file.fileno()))
            while count := file.readinto(buffer):
                total.update(memoryview(buffer)[:count])
                advance(count)
            after = stamp(os.fstat(file.fileno()))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if before != after:
        raise InputError(f"{path}: changed while it was read; wait until it is written, then try again")
    return total.hexdigest()


def digest_each(files: Iterable[Path], advance: Callable[[int], None] = lambda nbytes: None) -> dict[Path, str]:
    """`digest_file` of each, once, several at a time: one thread is slower than a disk."""
    files = list(dict.fromkeys(files))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return dict(zip(files, threads.map(lambda file: digest_file(file, advance), files), strict=True))


def digest_files(files: Iterable[Path], advance: Callable[[int], None] = lambda nbytes: None) -> dict[str, str]:
    """`digest_each` of the files of one folder, by their names."""
    return {file.name: found for file, found in digest_each(files, advance).items()}


def stamp(stat: os.stat_result) -> Stamp:
    """What tells that a file is still the one that was opened: its place and size, and when it last changed.

    The time of change cannot be set back, as that of modification can.
    """
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
