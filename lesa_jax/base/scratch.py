"""Room for arrays that may be larger than memory: on the disk, in files without a name, which go with the process."""

import math
import os
import tempfile
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lesa_jax.base.errors import InputError

READERS = 8  # of a file at once: a disk answers in 0.1 ms, and many questions in little more


class Scratch:
    """Room for arrays: in memory while there is some, then in nameless files of `folder`.

    What an array holds does not depend on where it is.
    """

    def __init__(self, folder: Path, memory: int):
        """`memory` is how many bytes of arrays may be in memory at a time."""
        self.folder, self.free = folder, memory

    def array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array to be filled; one on the disk is mapped."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        if nbytes > self.free:
            with os.fdopen(_nameless(self.folder, nbytes), "r+b") as file:
                return np.memmap(file, dtype, "r+", shape=shape)
        array = np.empty(shape, dtype)
        self.free -= nbytes
        weakref.finalize(array, self._release, nbytes)
        return array

    def rows(self, shape: tuple[int, int, int]) -> "np.ndarray | RowFile":
        """Blocks [rows, n] of float32, to be filled one by one and read row by row: an array, or a file."""
        nbytes = 4 * math.prod(shape)
        return self.array(shape, np.float32) if nbytes <= self.free else RowFile(self.folder, shape)

    def _release(self, nbytes: int) -> None:
        self.free += nbytes


class RowFile:
    """Blocks [rows, n] of float32 in a nameless file, read and written, not mapped: a row that is not in memory costs a
    tenth of what a mapped one does.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, folder: Path, shape: tuple[int, int, int]):
        self.shape = shape
        self._file = _nameless(folder, 4 * math.prod(shape))
        self._readers = ThreadPoolExecutor(READERS)
        weakref.finalize(self, os.close, self._file)

    def __getitem__(self, block: int) -> Float[np.ndarray, "rows n"]:
        out = np.empty(self.shape[1:], np.float32)
        _read(self._file, out, self._start(block * self.shape[1]))
        return out

    def __setitem__(self, block: int, values: Float[np.ndarray, "rows n"]) -> None:
        left, start = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8).data, block * self.shape[1]
        position = self._start(start)
        while left:  # a write may be short
            written = os.pwrite(self._file, left, position)
            left, position = left[written:], position + written

    def take(self, rows: Int[np.ndarray, "*places"], out: Float[np.ndarray, "*places n"]) -> None:
        """Rows, counted over all blocks, into `out`, some at a time."""
        where = [(row, place) for place, row in zip(np.ndindex(rows.shape), rows.flat, strict=True)]

        def some(first: int) -> None:
            for row, place in where[first::READERS]:
                _read(self._file, out[place], self._start(int(row)))

        list(self._readers.map(some, range(READERS)))

    def _start(self, row: int) -> int:
        return 4 * row * self.shape[2]


def _read(file: int, out: np.ndarray, position: int) -> None:
    left = out.reshape(-1).view(np.uint8).data
    while left:
        count = os.preadv(file, [left], position)
        if not count:
            raise ValueError(f"nothing at byte {position} of a scratch file")
        left, position = left[count:], position + count


def _nameless(folder: Path, nbytes: int) -> int:
    """A descriptor of a file of so many bytes.

    Raises:
      InputError: the disk has no room for it.
    """
    try:
        file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    except (AttributeError, OSError):  # not Linux, or a file system without
        file, name = tempfile.mkstemp(dir=folder)
        os.unlink(name)
    try:
        os.posix_fallocate(file, 0, nbytes)
    except OSError as error:
        os.close(file)
        raise InputError(
            f"{folder.parent}: no room for {nbytes / 1e9:.2f} GB of scratch ({error.strerror}); free some space, or "
            "give more --memory, so that less of it goes to the disk"
        ) from None
    return file
