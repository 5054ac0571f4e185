"""Whether a checkpoint's numbers are numbers, and which bytes it was."""

import hashlib

import numpy as np

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import FLOATS
from lesa_jax.checkpoint.reader import Checkpoint, read_bytes, release

# An IEEE number is infinite or not a number exactly when all bits of its exponent are set.
EXPONENTS = {"F64": (np.uint64, 0x7FF0 << 48), "F32": (np.uint32, 0x7F80 << 16), "BF16": (np.uint16, 0x7F80)}
EXPONENTS["F16"] = (np.uint16, 0x7C00)
BLOCK = 1 << 20  # bytes that stay in a core's cache between the two passes over them


def check_finite(checkpoint: Checkpoint) -> None:
    """Reads every floating-point tensor once, at the speed of memory.

    Raises:
      InputError: the first tensor that holds NaN or an infinity.
    """
    for entry in sorted(checkpoint.entries.values(), key=lambda e: (e.file, e.start)):
        if entry.spec.dtype not in FLOATS:
            continue
        unsigned, exponent = EXPONENTS[entry.spec.dtype]
        mask = unsigned(exponent)
        bits = np.frombuffer(read_bytes(checkpoint, entry), unsigned)
        step = BLOCK // bits.itemsize
        if any((bits[i : i + step] & mask).max() == mask for i in range(0, len(bits), step)):
            raise InputError(
                f"{entry.file.name}: tensor {entry.name} holds NaN or Inf; repair or replace the checkpoint first"
            )
        release(checkpoint)


def fingerprint(checkpoint: Checkpoint) -> str:
    """Tells checkpoints apart without reading them: a digest of every tensor's name, shape, dtype and first bytes."""
    digest = hashlib.sha256()
    for name, entry in sorted(checkpoint.entries.items()):
        digest.update(f"{name} {entry.spec.shape} {entry.spec.dtype} ".encode())
        digest.update(read_bytes(checkpoint, entry)[:4096])
    release(checkpoint)
    return digest.hexdigest()
