"""The tensors of grown checkpoints that are not computed: copied, averaged, or zero."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lesa_jax.checkpoint.format import DTYPES
from lesa_jax.checkpoint.reader import Checkpoint, Entry, changed, opened, read
from lesa_jax.checkpoint.writer import Place
from lesa_jax.growth.output import Output
from lesa_jax.growth.recipe import Part

LONGEST = 1 << 28  # bytes of a run
COMMIT = 1 << 31  # bytes after which a run that is killed need not copy them again


@dataclass(frozen=True)
class Run:
    """Tensors of an output that follow each other there, and lie as they are in a file of the original; or one tensor
    that is made.

    Attributes:
      parts: in order.
      file: of the original, where the tensor that the first one extends lies.
      start: the byte where it begins.
      plain: whether they are copied byte for byte.
    """

    parts: tuple[Part, ...]
    file: Path
    start: int
    plain: bool


def write_copies(checkpoint: Checkpoint, outputs: Sequence[Output]) -> None:
    """Writes every tensor that is not computed, in the order in which the originals lie on the disk."""
    runs = [[(output, run) for run in runs_of(checkpoint, output)] for output in outputs]
    unsaved: dict[int, list[str]] = {id(output): [] for output in outputs}
    nbytes = dict.fromkeys(unsaved, 0)
    for output, run in heapq.merge(*runs, key=lambda item: (item[1].file, item[1].start)):
        if output.failure is None:
            write_run(checkpoint, output, run)
            names = [part.name for part in run.parts]
            unsaved[id(output)] += names
            nbytes[id(output)] += sum(output.job.layout.places[name].nbytes for name in names)
            if nbytes[id(output)] >= COMMIT:
                output.finish_tensors(unsaved[id(output)])
                unsaved[id(output)], nbytes[id(output)] = [], 0


def write_run(checkpoint: Checkpoint, output: Output, run: Run) -> None:
    if run.plain:
        with opened(checkpoint, run.file) as source:
            if not output.writer.copy([part.name for part in run.parts], source, run.start):
                raise changed(run.file)
        return
    [part] = run.parts
    if part.made == "zero":
        output.writer.leave_zero(part.name)
    else:
        output.write(part.name, part_bytes(checkpoint, part, output.agreement(part)))


def runs_of(checkpoint: Checkpoint, output: Output) -> list[Run]:
    """What is still to be written of an output, by its place in the original."""

    def entry(part: Part) -> Entry:
        return checkpoint.entries[part.stack.name(*part.numbers)]

    def plain(part: Part) -> bool:
        return part.made == "copy" and part.resize is None and part.scale * output.agreement(part) == 1

    places, missing = output.job.layout.places, output.writer.missing
    parts = [part for part in output.job.parts if part.made != "computed" and part.name in missing]
    found: list[Run] = []
    for part in sorted(parts, key=lambda part: (places[part.name].file, places[part.name].start)):
        source = checkpoint.entries[part.sources[0]] if plain(part) else entry(part)
        run = Run((part,), source.file, source.start, plain(part))
        if found and follows(places, found[-1], run):
            found[-1] = replace(found[-1], parts=(*found[-1].parts, part))
        else:
            found.append(run)
    return sorted(found, key=lambda run: (run.file, run.start))


def follows(places: Mapping[str, Place], before: Run, run: Run) -> bool:
    """Whether two runs are one, here and there; not for ever, so that several outputs take turns at what was read."""
    if not (before.plain and run.plain and before.file == run.file):
        return False
    first, last, here = (places[part.name] for part in (before.parts[0], before.parts[-1], run.parts[0]))
    length = last.start + last.nbytes - first.start
    if length + here.nbytes > LONGEST:
        return False
    return (here.file, here.start) == (first.file, first.start + length) and run.start == before.start + length


def part_bytes(checkpoint: Checkpoint, part: Part, factor: float = 1.0) -> bytes | memoryview:
    """The bytes of a tensor that is made of others; `factor` on its loudness."""
    dtype = DTYPES[part.stack.spec.dtype]
    tensors = [read(checkpoint, name).astype(np.float64) for name in part.sources]
    mean = np.average(tensors, axis=0, weights=part.weights)
    if part.resize is not None:
        mean = part.resize.of(mean, read(checkpoint, part.resize.writer))
    with np.errstate(over="ignore"):  # found when it is written
        return part.scaled(mean, factor).astype(dtype).tobytes()
