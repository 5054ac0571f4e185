"""New matrices for whole checkpoints: one weight kind after the other is read, worked on, written, forgotten.

Any number of grown models of one original are filled at once: a kind is read once for all of them.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

import jax
import numpy as np
from rich.progress import Progress

from lesa_jax.base.background import second_thread
from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import DTYPES
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.families.kinds import WeightKind, read_matrices
from lesa_jax.growth.job import ExpandJob
from lesa_jax.growth.matrices import (
    NewMatrices,
    OldMatrices,
    Request,
    batch_bytes,
    compute_matrices,
    raised,
)
from lesa_jax.growth.output import Output
from lesa_jax.growth.result import Learned
from lesa_jax.growth.weights import batches
from lesa_jax.initializers.lesa.predict import prediction_programs
from lesa_jax.planning.methods import Lesa


def compute_new_layers(checkpoint: Checkpoint, outputs: Sequence[Output], progress: Progress) -> None:
    """Computes and writes new layers' matrices, one weight kind after the other, for all outputs.

    Args:
      checkpoint: the original.
      outputs: of jobs that compute; each gets its tensors, or a `failure`.
      progress: gets a bar over weight kinds.
    """
    jobs = [output.job for output in outputs]
    groups = shared_batches(jobs)
    bar = progress.add_task("weight kinds", total=sum(map(len, groups)), note="")
    with second_thread() as compiler:
        for batch, following in zip(groups, [*groups[1:], None], strict=True):
            wanting = [output for output in outputs if batch[0] in output.job.computed and output.failure is None]
            kinds = chain.from_iterable(old_matrices(checkpoint, kind) for kind in batch)
            computed = compute_matrices(kinds, [request_of(output.job, batch[0]) for output in wanting])
            for kind in batch:
                progress.update(bar, note=kind.name)
                pages = []
                for _ in range(kind.pages):
                    pages.append(next(computed))  # comes as soon as its training is under way
                    if following is not None:
                        compiler.submit(compile_batch, jobs, following)
                        following = None
                    wait(pages[-1][1])
                write(kind, wanting, pages)
                del pages  # before the next kind is read
                progress.advance(bar)


def write(
    kind: WeightKind, outputs: Sequence[Output], pages: Sequence[tuple[OldMatrices, Sequence[NewMatrices]]]
) -> None:
    """Hands each output its new matrices of one kind, of packed experts a page for each."""
    old_norm = float(np.mean([old.norm for old, _ in pages]))
    for output, new in zip(outputs, zip(*(new for _, new in pages), strict=True), strict=True):
        try:
            output.receive(kind, [matrices_of(page, output.job.method.name) for page in new], old_norm, learned(new))
        except InputError as error:
            output.failure = error


def matrices_of(page: NewMatrices, method: str) -> np.ndarray:
    """A page's matrices in the host's memory.

    Raises:
      InputError: they could not be made, or their computation, which goes on after it was asked for, failed.
    """
    if page.failure is not None:
        raise page.failure
    try:
        return np.asarray(page.weights)
    except jax.errors.JaxRuntimeError as error:
        raise raised(f"method {method}: its computation", error) from error


def request_of(job: ExpandJob, kind: WeightKind) -> Request:
    """What a job asks for of this kind, and of every other in the same layers."""
    gaps = tuple(part.numbers[0] - kind.stack.starts[0] for part in job.computed[kind])
    return Request(job.method.start, gaps, job.settings.seed, job.settings.predictor, job.method.name)


def learned(pages: Sequence[NewMatrices]) -> list[Learned]:
    """How well predictors learned, page by page; empty where none was trained."""
    trained = [(page.fit, page.agreement) for page in pages if page.fit is not None and page.agreement is not None]
    return [Learned(float(fit.epoch_losses[-1]), float(agreement)) for fit, agreement in trained]


def shared_batches(jobs: Sequence[ExpandJob]) -> list[list[WeightKind]]:
    """Kinds that share shape, layers, and the jobs that want them; a job with silenced outputs wants fewer."""
    found = []
    for batch in batches((kind for job in jobs for kind in job.computed), batch_bytes()):
        groups: dict[tuple[bool, ...], list[WeightKind]] = {}
        for kind in batch:
            groups.setdefault(tuple(kind in job.computed for job in jobs), []).append(kind)
        found += groups.values()
    return found


def compile_first(jobs: Sequence[ExpandJob]) -> None:
    """Compiles what `compute_new_layers` begins with."""
    compile_batch(jobs, shared_batches(jobs)[0])


def compile_batch(jobs: Sequence[ExpandJob], batch: list[WeightKind]) -> None:
    """Compiles what `compute_new_layers` will run for this batch of weight kinds."""
    if jax.default_backend() != "cpu":  # there a batch is one program of its own
        return
    kind = batch[0]
    for request in dict.fromkeys(request_of(job, kind) for job in jobs if kind in job.computed):
        if isinstance(request.start, Lesa):
            dtype = DTYPES[kind.stack.spec.dtype]
            for program in prediction_programs(kind.shape, dtype, request.gaps, request.start, request.predictor):
                program.compile()


def wait(page: Sequence[NewMatrices]) -> None:
    """Waits for a computation in a way that Ctrl-C can end, which blocking inside XLA is not."""
    while not all(new.weights.is_ready() for new in page):  # pyright: ignore[reportAttributeAccessIssue]
        time.sleep(0.01)


def old_matrices(checkpoint: Checkpoint, kind: WeightKind) -> Iterator[OldMatrices]:
    """A kind's matrices of all layers in the file's dtype; for packed experts, expert after expert."""
    for page in range(kind.pages):
        part = "" if kind.part is None else f" {kind.part.name}"
        name, beside = f"{kind.stack.template} {kind.inner} {page}{part}", partial(read_beside, checkpoint, kind)
        # No name here keeps the stack while this frame waits.
        yield OldMatrices(name, *read_matrices(checkpoint, kind, page), beside)


def read_beside(checkpoint: Checkpoint, kind: WeightKind) -> Mapping[str, np.ndarray]:
    """The matrices of all layers that stand beside a kind."""
    return {side: read_matrices(checkpoint, other, 0)[0] for side, other in kind.beside}
