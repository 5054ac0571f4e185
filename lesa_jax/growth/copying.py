"""The tensors of grown checkpoints that are not computed: copied, averaged, or zero."""

import heapq
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lesa_jax.checkpoint.format import DTYPES
from lesa_jax.checkpoint.reader import Checkpoint, read, read_bytes
from lesa_jax.growth.output import Output
from lesa_jax.growth.recipe import Part


def write_copies(checkpoint: Checkpoint, outputs: Sequence[Output]) -> None:
    """Writes every tensor that is not computed, in the order in which the originals lie on the disk."""
    rest = [[(output, part) for part in output.job.parts if part.made != "computed"] for output in outputs]
    for output, part in heapq.merge(*rest, key=lambda item: place_in_source(checkpoint, item[1])):
        if output.failure is None:
            output.write(part.name, part_bytes(checkpoint, part, output.agreement(part)))


def place_in_source(checkpoint: Checkpoint, part: Part) -> tuple[Path, int]:
    """Where the original of a tensor lies, so that several outputs take it from the disk together."""
    entry = checkpoint.entries[part.stack.name(*part.numbers)]
    return entry.file, entry.start


def part_bytes(checkpoint: Checkpoint, part: Part, factor: float = 1.0) -> bytes | memoryview:
    """The bytes of a tensor that is not computed; `factor` on its loudness."""
    if part.made == "copy" and part.scale * factor == 1:
        return read_bytes(checkpoint, checkpoint.entries[part.sources[0]])
    dtype = DTYPES[part.stack.spec.dtype]
    if part.made == "zero":
        return np.zeros(part.stack.spec.shape, dtype).tobytes()
    tensors = [read(checkpoint, name).astype(np.float64) for name in part.sources]
    mean = np.average(tensors, axis=0, weights=part.weights)
    with np.errstate(over="ignore"):  # found when it is written
        return part.scaled(mean, factor).astype(dtype).tobytes()
