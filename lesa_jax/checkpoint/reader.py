"""Reads Hugging Face checkpoints lazily: a folder is a config and tensors that lie in their files until asked for.

Nothing is unpickled, and no path outside the folder is followed. Headers are checked by the safetensors library before
any byte of them is used. Files are read, not mapped: a mapped file that is cut short kills the process, and a read can
see to it that the file is still the one that was opened. Source of the format: github.com/huggingface/safetensors.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from lesa_jax.base.digests import Stamp, stamp
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import inside, read_json
from lesa_jax.checkpoint.format import DTYPES, FLOATS, INDEX, QUANTISED_PARTS, WEIGHTS, TensorSpec
from lesa_jax.checkpoint.names import Stack, stack_names


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: bytes [start, stop) of `file`."""

    name: str
    spec: TensorSpec
    file: Path
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint folder. Tensors are read with `read`, `read_into` and `read_stack`.

    `stamps` tells the weight files from later ones of the same names.
    """

    folder: Path
    config: dict[str, Any]
    entries: Mapping[str, Entry]
    stacks: tuple[Stack, ...]
    stamps: Mapping[Path, Stamp] = field(repr=False)

    @property
    def files(self) -> list[Path]:
        return sorted(self.stamps)

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self.entries.values())

    @property
    def parameters(self) -> int:
        return sum(int(np.prod(entry.spec.shape)) for entry in self.entries.values() if entry.spec.dtype in FLOATS)


def open_checkpoint(folder: str | Path) -> Checkpoint:
    """Opens a folder with config.json and one or several safetensors files; reads no weights.

    Raises:
      InputError: missing, truncated, corrupted, quantised or escaping files, each named with what to do.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder with config.json and {WEIGHTS}, or a hub id")
    config = read_json(folder / "config.json", "every Hugging Face checkpoint has one")
    reject_quantised(config)
    entries: dict[str, Entry] = {}
    stamps: dict[Path, Stamp] = {}
    for file, expected in weight_files(folder).items():
        stamps[file] = stamp(file.stat())
        shard = read_header(file)
        if missing := sorted(expected - shard.keys()):
            raise InputError(f"{file.name}: tensor {missing[0]} is in {INDEX} but not in the file; download it again")
        if double := sorted(entries.keys() & shard.keys()):
            raise InputError(f"{file.name}: tensor {double[0]} is also in {entries[double[0]].file.name}; keep one")
        entries |= shard
    stacks = stack_names({name: entry.spec for name, entry in entries.items()})
    return Checkpoint(folder, config, entries, tuple(stacks), stamps)


def weight_files(folder: Path) -> dict[Path, set[str]]:
    """The folder's safetensors files and the tensors that the index expects in each.

    Where a single file lies beside an index it counts, and the index does not, as for transformers.
    """
    if (folder / WEIGHTS).exists():
        return {inside(folder / WEIGHTS): set()}
    if (folder / INDEX).exists():
        weight_map = read_json(folder / INDEX, "").get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(f, str) for f in weight_map.values()):
            raise InputError(f"{folder / INDEX}: no weight_map from tensor names to file names; download it again")
        files: dict[Path, set[str]] = {}
        for name, file in weight_map.items():
            if Path(file).name != file or "\\" in file or "\0" in file:
                raise InputError(f"{INDEX}: shard {file!r} is a path outside the folder; use plain file names")
            files.setdefault(folder / file, set()).add(name)
        for file in files:
            if not file.exists():
                raise InputError(f"{INDEX}: shard {file.name} is missing from {folder}; download it again")
        return {inside(file): names for file, names in sorted(files.items())}
    pickles = sorted(f.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for f in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{folder}: only {pickles[0]}, a pickle, which can run code when loaded; convert it once with "
            f'transformers: AutoModelForCausalLM.from_pretrained("{folder}").save_pretrained(NEW_FOLDER)'
        )
    raise InputError(f"{folder}: neither {WEIGHTS} nor {INDEX}; give a folder with safetensors weights")


def read_header(file: Path) -> dict[str, Entry]:
    """Where each tensor of one safetensors file lies, after the library has checked header, sizes and overlaps."""
    try:
        with safe_open(file, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: truncated or corrupted safetensors ({error}); download it again") from None
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    entries = {}
    for name, info in header.items():
        if info["dtype"] not in DTYPES or QUANTISED_PARTS & set(name.split(".")):
            raise InputError(
                f"{file.name}: tensor {name} ({info['dtype']}) is quantised; dequantise the model to bf16 first"
            )
        start, stop = (8 + length + offset for offset in info["data_offsets"])
        entries[name] = Entry(name, TensorSpec(tuple(info["shape"]), info["dtype"]), file, start, stop)
    if not entries:
        raise InputError(f"{file}: holds no tensors; download it again")
    return entries


def reject_quantised(config: Mapping[str, Any]) -> None:
    quantisation = config.get("quantization_config")
    if quantisation:
        method = quantisation.get("quant_method", "unknown method") if isinstance(quantisation, dict) else quantisation
        raise InputError(
            f"config.json: the checkpoint is quantised ({method}); new layers are computed from plain weights, so "
            "dequantise it to bf16 first, or take the original checkpoint"
        )


def read(checkpoint: Checkpoint, name: str, first: int = 0, count: int | None = None) -> np.ndarray:
    """One tensor in the file's dtype; or of its first axis only `count` entries from `first` on.

    Raises:
      InputError: the file is no longer the one that was opened.
    """
    spec = checkpoint.entries[name].spec
    shape = spec.shape if count is None else (count, *spec.shape[1:])
    out = np.empty(shape, DTYPES[spec.dtype])
    read_into(checkpoint, name, out, first)
    return out


def read_into(checkpoint: Checkpoint, name: str, out: np.ndarray, first: int = 0) -> None:
    """Fills `out`, contiguous and in the file's dtype, with a tensor's numbers from entry `first` of its first axis on.

    Raises:
      InputError: the file is no longer the one that was opened.
    """
    entry = checkpoint.entries[name]
    row = math.prod(entry.spec.shape[1:]) * out.dtype.itemsize
    _read_range(checkpoint, entry.file, entry.start + first * row, out.reshape(-1).view(np.uint8))


def read_bytes(checkpoint: Checkpoint, entry: Entry) -> memoryview:
    """The tensor's bytes as they are in the file."""
    out = np.empty(entry.nbytes, np.uint8)
    _read_range(checkpoint, entry.file, entry.start, out)
    return out.data


def _read_range(checkpoint: Checkpoint, file: Path, start: int, out: np.ndarray) -> None:
    with opened(checkpoint, file) as stream:
        stream.seek(start)
        if not fill(stream, out.data):
            raise changed(file)


def fill(stream: FileIO, space: memoryview) -> bool:
    """Reads until the space is full; False if the file ends before."""
    while space and (count := stream.readinto(space)):  # an unbuffered read may be short
        space = space[count:]
    return not space


@contextmanager
def opened(checkpoint: Checkpoint, file: Path) -> Iterator[FileIO]:
    """A weight file, to be read.

    Raises:
      InputError: it cannot be read, or when the block ends, it is no longer the file that was opened at first.
    """
    try:
        with file.open("rb", buffering=0) as stream:
            yield stream
            same = stamp(os.fstat(stream.fileno())) == checkpoint.stamps[file]
    except OSError as error:
        raise InputError(f"{file}: cannot be read any more ({error.strerror}); try again") from None
    if not same:
        raise changed(file)


def check_unchanged(checkpoint: Checkpoint) -> None:
    """Raises InputError where a weight file is no longer the one that was opened."""
    for file, known in checkpoint.stamps.items():
        if not file.exists() or stamp(file.stat()) != known:
            raise changed(file)


def changed(file: Path) -> InputError:
    return InputError(f"{file}: changed while it was in use; wait until it is written, then run the same command again")


def read_stack(checkpoint: Checkpoint, stack: Stack) -> np.ndarray:
    """All tensors of one stack, stacked: shape `stack.sizes + stack.spec.shape`, in the file's dtype."""
    out = np.empty((*stack.sizes, *stack.spec.shape), DTYPES[stack.spec.dtype])
    # Rows with an axis even where a tensor is a single number: numpy would give that out as a copy.
    for row, name in zip(out.reshape(math.prod(stack.sizes), -1), stack.names(), strict=True):
        read_into(checkpoint, name, row)
    return out


def load_tree(checkpoint: Checkpoint, dtype: np.dtype | None = None) -> dict[str, Any]:
    """The whole checkpoint as a nested dict of stacked numpy arrays (see `names`), cast to `dtype` when given."""
    tree: dict[str, Any] = {}
    for stack in checkpoint.stacks:
        node = tree
        for key in stack.path[:-1]:
            node = node.setdefault(key, {})
        array = read_stack(checkpoint, stack)
        node[stack.path[-1]] = array if dtype is None or stack.spec.dtype not in FLOATS else array.astype(dtype)
    return tree
