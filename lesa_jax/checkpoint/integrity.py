"""Whether numbers are numbers, and which checkpoint they are of."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import numpy as np

from lesa_jax.base.background import second_thread
from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import FLOATS
from lesa_jax.checkpoint.reader import Checkpoint, Entry, changed, fill, opened

# An IEEE number is infinite or not a number exactly when all bits of its exponent are set.
EXPONENTS = {"F64": (np.uint64, 0x7FF0 << 48), "F32": (np.uint32, 0x7F80 << 16), "BF16": (np.uint16, 0x7F80)}
EXPONENTS["F16"] = (np.uint16, 0x7C00)
BLOCK = 1 << 18  # bytes that stay in a core's cache between the two passes over them
PIECE = 1 << 20  # bytes read from a file at once: they are in the cache for both that is done with them


def is_finite(data: np.ndarray | bytes | memoryview, dtype: str) -> bool:
    """Whether the bytes of a tensor hold neither NaN nor an infinity, at the speed of memory.

    Args:
      data: contiguous.
      dtype: by its safetensors name; only the floating-point ones have such values.
    """
    if dtype not in FLOATS:
        return True
    unsigned, exponent = EXPONENTS[dtype]
    mask = unsigned(exponent)
    bits = np.frombuffer(data, unsigned)
    step = BLOCK // bits.itemsize
    return not any((bits[i : i + step] & mask).max() == mask for i in range(0, len(bits), step))


Digests = dict[str, str]  # SHA-256 of files, by their names


@contextmanager
def verified_beside(checkpoint: Checkpoint | None) -> Iterator[Callable[[], Digests]]:
    """Has the weight files verified in the background; what is yielded waits for their digests, when they are needed.

    It raises InputError as `verify` does: numbers that are none would be worked with, or copied to what is published.
    """
    if checkpoint is None:
        yield dict
        return
    left = Event()

    def go_on(nbytes: int) -> None:
        if left.is_set():
            raise CancelledError

    with second_thread() as thread:
        found = thread.submit(verify, checkpoint, go_on)
        try:
            yield found.result
        finally:
            left.set()


def verify(checkpoint: Checkpoint, advance: Callable[[int], None] = lambda nbytes: None) -> Digests:
    """Reads every weight file once, several at a time: are its numbers numbers, and what is its digest?

    Args:
      checkpoint: whose files they are.
      advance: called with numbers of bytes as they are read.

    Returns:
      SHA-256 by the files' names, as `sha256sum` shows it.

    Raises:
      InputError: the first tensor that holds NaN or an infinity, or a file that is no longer the one that was opened.
    """
    tensors: dict[Path, list[Entry]] = {file: [] for file in checkpoint.files}
    for entry in sorted(checkpoint.entries.values(), key=lambda entry: entry.start):
        tensors[entry.file].append(entry)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(lambda file: _verify(checkpoint, file, tensors[file], advance), tensors)
        return dict(zip((file.name for file in tensors), found, strict=True))


def _verify(checkpoint: Checkpoint, file: Path, entries: Sequence[Entry], advance: Callable[[int], None]) -> str:
    total, buffer, position = hashlib.sha256(), memoryview(bytearray(PIECE)), 0
    with opened(checkpoint, file) as stream:

        def read(end: int) -> Iterator[memoryview]:
            """Pieces of the file up to there, of whole numbers, which go into the digest, too."""
            nonlocal position
            while position < end:
                piece = buffer[: end - position]
                if not fill(stream, piece):
                    raise changed(file)
                position += len(piece)
                total.update(piece)
                advance(len(piece))
                yield piece

        for entry in entries:
            for _ in read(entry.start):
                pass
            if not all(is_finite(piece, entry.spec.dtype) for piece in read(entry.stop)):
                raise InputError(
                    f"{file.name}: tensor {entry.name} holds NaN or Inf; repair or replace the checkpoint first"
                )
        for _ in read(checkpoint.stamps[file][2]):
            pass
    return total.hexdigest()
