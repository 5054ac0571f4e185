"""New matrices for whole checkpoints: one weight kind after the other is read, worked on, written, forgotten.

Any number of grown models of one original are filled at once: a kind is read once for all of them.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

import jax
import numpy as np
from rich.progress import Progress

from lesa_jax.base.background import second_thread
from lesa_jax.base.machine import arrays_given_back
from lesa_jax.base.scratch import Scratch
from lesa_jax.base.stages import Meter
from lesa_jax.checkpoint.format import DTYPES
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.families.kinds import WeightKind, read_matrix
from lesa_jax.growth.effort import effort
from lesa_jax.growth.job import ExpandJob
from lesa_jax.growth.matrices import (
    NewMatrices,
    OldMatrices,
    batch_bytes,
    compute_matrices,
    raised,
    streams,
)
from lesa_jax.growth.output import Output
from lesa_jax.growth.requests import Request
from lesa_jax.growth.result import KindResult, Learned
from lesa_jax.growth.weights import batches
from lesa_jax.initializers.lesa.predict import prediction_programs
from lesa_jax.planning.methods import Lesa


def compute_new_layers(
    checkpoint: Checkpoint, outputs: Sequence[Output], room: Scratch, seconds: dict[str, float], progress: Progress
) -> None:
    """Computes and writes new layers' matrices, one weight kind after the other, for all outputs.

    Args:
      checkpoint: the original.
      outputs: of jobs that compute; each gets its tensors, or a `failure`.
      room: for what is kept of all layers of a kind.
      seconds: by stage; what is spent here is added.
      progress: gets a bar over the work, by `effort`.
    """
    jobs = [output.job for output in outputs]
    groups = shared_batches([output.pending for output in outputs])
    total = 0.0
    for kind in (kind for group in groups for kind in group):
        wanted = [request_of(output.job, kind) for output in outputs if kind in output.pending]
        total += kind.pages * effort(kind.shape, wanted)
    bar = progress.add_task("new matrices", total=total, note="")
    meter = Meter(seconds, partial(progress.advance, bar))
    with second_thread() as compiler, arrays_given_back():
        for batch, following in zip(groups, [*groups[1:], None], strict=True):
            if following is not None:
                compiler.submit(compile_batch, jobs, following)
            wanting = [output for output in outputs if batch[0] in output.pending and output.failure is None]
            compute_batch(checkpoint, batch, wanting, room, meter, partial(progress.update, bar))
    progress.update(bar, completed=total, note="")


def compute_batch(
    checkpoint: Checkpoint,
    batch: Sequence[WeightKind],
    outputs: Sequence[Output],
    room: Scratch,
    meter: Meter,
    show: Callable[..., None],
) -> None:
    """`compute_new_layers` for kinds that share shape and layers, and outputs that want all of them."""
    requests = [request_of(output.job, batch[0]) for output in outputs]
    pages = [(kind, page) for kind in batch for page in range(kind.pages)]
    kinds = [old_matrices(checkpoint, kind, page) for kind, page in pages]
    measured: dict[tuple[WeightKind, int], list[KindResult]] = {}
    show(note=batch[0].name)
    for number, i, new in compute_matrices(kinds, requests, room, meter):
        kind, page = pages[number]
        show(note=kind.name)
        with meter.stage("new layers"):
            matrices = on_host(new.matrices, outputs[i].job.method.name)
            result = outputs[i].receive(kind, page, matrices, kinds[number].norm, learned(new))
            done = measured.setdefault((kind, i), [])
            done += [] if result is None else [result]
            if len(done) == kind.pages:
                outputs[i].finish_kind(kind, done)


def on_host(matrices: Iterator[jax.Array], method: str) -> Iterator[np.ndarray]:
    """The matrices in the host's memory, one after the other.

    Raises:
      InputError: the computation, which goes on after it was asked for, failed.
    """
    try:
        for matrix in matrices:
            wait(matrix)
            yield np.asarray(matrix)
    except jax.errors.JaxRuntimeError as error:
        raise raised(f"method {method}: its computation", error) from error


def request_of(job: ExpandJob, kind: WeightKind) -> Request:
    """What a job asks for of this kind, and of every other in the same layers."""
    gaps = tuple(part.numbers[0] - kind.stack.starts[0] for part in job.computed[kind])
    return Request(job.method.start, gaps, job.settings.seed, job.settings.predictor, job.method.name)


def learned(new: NewMatrices) -> Learned | None:
    """How well a predictor learned; None where none was trained."""
    if new.fit is None or new.agreement is None:
        return None
    left_out = None if new.left_out is None else float(new.left_out)
    return Learned(float(new.fit.epoch_losses[-1]), float(new.agreement), left_out)


def shared_batches(wanted: Sequence[Collection[WeightKind]]) -> list[list[WeightKind]]:
    """Kinds that share shape, layers, and the models that want them; one with silenced outputs wants fewer."""
    found = []
    for batch in batches((kind for kinds in wanted for kind in kinds), batch_bytes()):
        groups: dict[tuple[bool, ...], list[WeightKind]] = {}
        for kind in batch:
            groups.setdefault(tuple(kind in kinds for kinds in wanted), []).append(kind)
        found += groups.values()
    return found


def compile_first(jobs: Sequence[ExpandJob]) -> None:
    """Compiles what `compute_new_layers` begins with."""
    compile_batch(jobs, shared_batches([job.computed for job in jobs])[0])


def compile_batch(jobs: Sequence[ExpandJob], batch: list[WeightKind]) -> None:
    """Compiles what `compute_new_layers` will run for this batch of weight kinds."""
    kind = batch[0]
    if not streams(kind.nbytes // kind.pages):  # there a batch is one program of its own
        return
    for request in dict.fromkeys(request_of(job, kind) for job in jobs if kind in job.computed):
        if isinstance(request.start, Lesa):
            dtype = DTYPES[kind.stack.spec.dtype]
            for program in prediction_programs(kind.shape, dtype, request.start, request.predictor):
                program.compile()


def wait(matrix: jax.Array) -> None:
    """Waits for a computation in a way that Ctrl-C can end, which blocking inside XLA is not."""
    while not matrix.is_ready():  # pyright: ignore[reportAttributeAccessIssue]
        time.sleep(0.01)


def old_matrices(checkpoint: Checkpoint, kind: WeightKind, page: int = 0) -> OldMatrices:
    """A kind's matrices of all layers in the file's dtype; `page` is that of packed experts."""
    part = "" if kind.part is None else f" {kind.part.name}"
    name, dtype = f"{kind.stack.template} {kind.inner} {page}{part}", DTYPES[kind.stack.spec.dtype]
    beside = {side: old_matrices(checkpoint, other) for side, other in kind.beside}
    return OldMatrices(name, kind.shape, dtype, partial(read_matrix, checkpoint, kind, page), beside)
