"""Whether numbers are numbers, and which checkpoint they are of."""

from collections.abc import Iterator

import numpy as np

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import FLOATS
from lesa_jax.checkpoint.reader import Checkpoint, Entry, read

# An IEEE number is infinite or not a number exactly when all bits of its exponent are set.
EXPONENTS = {"F64": (np.uint64, 0x7FF0 << 48), "F32": (np.uint32, 0x7F80 << 16), "BF16": (np.uint16, 0x7F80)}
EXPONENTS["F16"] = (np.uint16, 0x7C00)
BLOCK = 1 << 18  # bytes that stay in a core's cache between the two passes over them
PIECE = 1 << 24  # bytes read from a file at once


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


def check_finite(checkpoint: Checkpoint) -> None:
    """Reads every floating-point tensor once.

    Raises:
      InputError: the first tensor that holds NaN or an infinity.
    """
    for entry in sorted(checkpoint.entries.values(), key=lambda e: (e.file, e.start)):
        if entry.spec.dtype in FLOATS and not all(is_finite(x, entry.spec.dtype) for x in _pieces(checkpoint, entry)):
            raise InputError(
                f"{entry.file.name}: tensor {entry.name} holds NaN or Inf; repair or replace the checkpoint first"
            )


def _pieces(checkpoint: Checkpoint, entry: Entry) -> Iterator[np.ndarray]:
    """A tensor, some rows at a time."""
    if not entry.spec.shape or entry.nbytes <= PIECE:
        yield read(checkpoint, entry.name)
        return
    rows = entry.spec.shape[0]
    step = max(1, rows * PIECE // entry.nbytes)
    for first in range(0, rows, step):
        yield read(checkpoint, entry.name, first, min(step, rows - first))
