"""Writes sharded safetensors: the layout is known first, then tensors arrive in any order, then it is published.

A checkpoint is written into a hidden folder beside its destination and gets its name in one rename when every byte is
on the disk, so whatever carries the final name is complete.
"""

import errno
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import sync, write_json
from lesa_jax.checkpoint.format import DTYPES, INDEX, WEIGHTS, TensorSpec
from lesa_jax.checkpoint.integrity import is_finite

CHUNK = 1 << 20  # bytes per write call: they stay in the cache between reading and writing
RANGE = 1 << 26  # bytes that the kernel copies at once


@dataclass(frozen=True)
class Place:
    """Where a tensor of the output lies: `nbytes` bytes of a safetensors `dtype`, from `start` of the file `file`."""

    file: str
    start: int
    nbytes: int
    dtype: str


@dataclass(frozen=True)
class Layout:
    """Every tensor's place, and the header (with its length field) that each file begins with."""

    places: Mapping[str, Place]
    headers: Mapping[str, bytes]

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.headers.values())) + sum(place.nbytes for place in self.places.values())

    def index(self) -> dict[str, Any] | None:
        """Content of the index file; None for a single file, which needs none."""
        if len(self.headers) == 1:
            return None
        total = sum(place.nbytes for place in self.places.values())
        return {"metadata": {"total_size": total}, "weight_map": {n: p.file for n, p in self.places.items()}}


def lay_out(specs: Mapping[str, TensorSpec], shard_size: int) -> Layout:
    """Distributes tensors over files of at most `shard_size` bytes, in the order given; a larger tensor gets its own.

    Args:
      specs: shape and dtype of every tensor of the output.
      shard_size: bytes of tensor data per file.
    """
    shards: list[dict[str, TensorSpec]] = [{}]
    room = shard_size
    for name, spec in specs.items():
        nbytes = size_of(spec)
        if nbytes > room and shards[-1]:
            shards.append({})
            room = shard_size
        shards[-1][name] = spec
        room -= nbytes
    if len(shards) == 1:
        return lay_out_files({WEIGHTS: shards[0]})
    return lay_out_files(
        {f"model-{number:05}-of-{len(shards):05}.safetensors": shard for number, shard in enumerate(shards, 1)}
    )


def lay_out_files(files: Mapping[str, Mapping[str, TensorSpec]]) -> Layout:
    """The layout of tensors of which it is known which file each is in; they lie there in the order given."""
    places, headers = {}, {}
    for file, specs in files.items():
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers refuses files without it
        offset = 0
        for name, spec in specs.items():
            end = offset + size_of(spec)
            header[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # tensor data is aligned to 8 bytes
        headers[file] = len(text).to_bytes(8, "little") + text
        offset = len(headers[file])
        for name, spec in specs.items():
            places[name] = Place(file, offset, size_of(spec), spec.dtype)
            offset += size_of(spec)
    return Layout(places, headers)


def size_of(spec: TensorSpec) -> int:
    """Bytes of a tensor."""
    return math.prod(spec.shape) * DTYPES[spec.dtype].itemsize


class TensorWriter:
    """The files of one layout; every byte of a tensor is written exactly once, in any order, by one thread.

    A file is open only while it is written to: models come in more shards than a process may have open. Files that are
    there already stay, and what is not skipped of them is written over.
    """

    def __init__(self, folder: Path, layout: Layout, advance: Callable[[int], None] = lambda nbytes: None):
        self.folder = folder
        self.layout = layout
        self.advance = advance
        self.missing = {name: place.nbytes for name, place in layout.places.items()}  # bytes
        ends = {place.file: place.start + place.nbytes for place in layout.places.values()}  # they lie in order
        for name, header in layout.headers.items():
            path = folder / name
            with path.open("r+b" if path.exists() else "xb", buffering=0) as file:
                self._write(file, header)
                file.truncate(ends.get(name, len(header)))
        self._changed = set(layout.headers)

    def skip(self, name: str, nbytes: int | None = None) -> None:
        """Leaves a tensor, or so many bytes of it, as an earlier writer of the same layout wrote them."""
        nbytes = self.missing[name] if nbytes is None else nbytes
        self.advance(nbytes)
        self._done(name, nbytes)

    def write(self, name: str, data: bytes | memoryview | np.ndarray, starts: Sequence[int] = (0,)) -> None:
        """Writes a tensor, or pieces of one.

        Args:
          name: the tensor's.
          data: contiguous bytes, of pieces of one length.
          starts: where in the tensor they begin.

        Raises:
          InputError: they hold a number that is none.
        """
        place, data = self.layout.places[name], memoryview(as_bytes(data))
        if len(data) > self.missing.get(name, 0) or (starts == (0,) and len(data) != place.nbytes):
            raise ValueError(f"{name}: {len(data)} bytes for {place.nbytes}, or written twice")
        check_numbers(name, data, place.dtype)
        piece = len(data) // len(starts)
        with (self.folder / place.file).open("r+b", buffering=0) as file:
            self._changed.add(place.file)
            for number, start in enumerate(starts):
                file.seek(place.start + start)
                self._write(file, data[number * piece : (number + 1) * piece])
        self._done(name, len(data))

    def leave_zero(self, name: str) -> None:
        """A tensor of zeros, as which a file reads where nothing was written to it."""
        self.skip(name)

    def copy(self, names: Sequence[str], source: FileIO, start: int) -> bool:
        """Copies the bytes of tensors that follow each other here and there, within the kernel where it can.

        Args:
          names: in their order.
          source: that holds them, from byte `start` on; its numbers are checked by others.

        Returns:
          Whether the source had so many bytes.
        """
        first = self.layout.places[names[0]]
        left = sum(self.layout.places[name].nbytes for name in names)
        self._changed.add(first.file)
        with (self.folder / first.file).open("r+b", buffering=0) as file:
            position = first.start
            while left:
                copied = copy_range(source, start, file, position, min(left, RANGE))
                if not copied:
                    return False
                start, position, left = start + copied, position + copied, left - copied
                self.advance(copied)
        for name in names:
            self._done(name, self.layout.places[name].nbytes)
        return True

    def _done(self, name: str, nbytes: int) -> None:
        self.missing[name] -= nbytes
        if not self.missing[name]:
            del self.missing[name]

    def _write(self, file: FileIO, data: bytes | memoryview) -> None:
        for start in range(0, len(data), CHUNK):
            part = memoryview(data)[start : start + CHUNK]
            while part:  # an unbuffered write may be short
                written = file.write(part)
                part = part[written:]
                self.advance(written)

    def sync(self) -> None:
        """Waits until what was written is on the disk."""
        for name in sorted(self._changed):
            sync(self.folder / name)
        self._changed.clear()

    def close(self) -> None:
        """Waits until everything is on the disk.

        Raises:
          ValueError: a tensor of the layout was never written.
        """
        if self.missing:
            raise ValueError(f"never written: {sorted(self.missing)[:3]} and {len(self.missing) - 1} others")
        self.sync()


def copy_range(source: FileIO, start: int, target: FileIO, position: int, count: int) -> int:
    """Copies up to `count` bytes; how many it were, none at the end of the source."""
    try:
        return os.copy_file_range(source.fileno(), target.fileno(), count, start, position)
    except (AttributeError, OSError) as error:  # not Linux, or not between these file systems
        if getattr(error, "errno", errno.ENOSYS) not in (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return os.pwrite(target.fileno(), os.pread(source.fileno(), min(count, CHUNK), start), position)


def as_bytes(data: bytes | memoryview | np.ndarray) -> bytes | memoryview:
    return data.reshape(-1).view(np.uint8).data if isinstance(data, np.ndarray) else data


def check_numbers(name: str, data: bytes | memoryview, dtype: str) -> None:
    """Refuses NaN and infinities in what is about to be written, whatever made them.

    Raises:
      InputError: names the tensor.
    """
    if not is_finite(data, dtype):
        raise InputError(f"{name}: not finite in {dtype}, so nothing was written")


def rewrite(folder: Path, layout: Layout, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Changes the numbers of a tensor in a checkpoint that is not published yet.

    Raises:
      InputError: the new ones are not finite.
    """
    place = layout.places[name]
    with (folder / place.file).open("r+b") as file:
        file.seek(place.start)
        numbers = np.frombuffer(file.read(place.nbytes), DTYPES[place.dtype])
        with np.errstate(over="ignore"):  # found below
            data = change(numbers).astype(numbers.dtype).tobytes()
        if len(data) != place.nbytes:
            raise ValueError(f"{name}: {len(data)} bytes for {place.nbytes}")
        check_numbers(name, data, place.dtype)
        file.seek(place.start)
        file.write(data)


def write_index(folder: Path, layout: Layout) -> None:
    index = layout.index()
    if index is not None:
        write_json(folder / INDEX, index)
