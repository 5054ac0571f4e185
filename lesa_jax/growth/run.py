"""Grows a checkpoint in any number of ways at once: every tensor of the original is read, taken apart and learned once.

`expand` is the case of one way, `compare` that of many.
"""

import heapq
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import Progress

from lesa_jax.base.background import second_thread
from lesa_jax.base.console import progress_bars
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import publish, write_json, write_text
from lesa_jax.checkpoint.companions import carry
from lesa_jax.checkpoint.format import DTYPES, FLOATS
from lesa_jax.checkpoint.integrity import check_finite, hash_files
from lesa_jax.checkpoint.reader import Checkpoint, read, read_bytes, release
from lesa_jax.checkpoint.writer import TensorWriter, write_index
from lesa_jax.growth.card import model_card
from lesa_jax.growth.job import Job, check_room, open_source, prepare, source_name
from lesa_jax.growth.recipe import Part
from lesa_jax.growth.result import ExpandReport, KindReport
from lesa_jax.growth.settings import ExpandSettings, recorded_settings
from lesa_jax.growth.weights import computation_memory, kind_name
from lesa_jax.planning.methods import Copy, find_method
from lesa_jax.planning.record import FILE as GROWTH_FILE
from lesa_jax.planning.record import Growth

if TYPE_CHECKING:
    from lesa_jax.growth.compute import Growing


Outcome = ExpandReport | InputError


@dataclass
class Work:
    """One way to grow under way: its folder, and what is known of it so far."""

    job: Job
    folder: Path
    writer: TensorWriter
    closing: ExitStack
    growing: "Growing | None" = None
    perplexity: dict[str, float] = field(default_factory=dict)
    scales: tuple[float, ...] = ()
    losses: Mapping[str, float] = field(default_factory=dict)


def grow(ways: Sequence[ExpandSettings]) -> list[Outcome]:
    """Grows one original in several ways.

    Args:
      ways: of one model and revision, each with an output of its own.

    Returns:
      For each way, what was done and measured, or for a dry run what would be done; or why it cannot be done. A way
      that fails leaves nothing under its output's name, and the others go on.

    Raises:
      InputError: the original cannot be used.
    """
    seconds: dict[str, float] = {}
    with second_thread() as background:
        with stage(seconds, "check"):
            checkpoint = open_source(ways[0])
            outcomes = prepare(ways, checkpoint)
            jobs = [outcome for outcome in outcomes if isinstance(outcome, Job)]
            if ways[0].dry_run or not jobs:
                return [summarise(o, seconds) if isinstance(o, Job) else o for o in outcomes]
            finite = background.submit(check_finite, checkpoint)
            check_room(jobs)
            warm_up(jobs)
            finite.result()
        digests = background.submit(hash_files, checkpoint.files)
        with progress_bars() as progress, ExitStack() as opened:
            before = measure_before(jobs, seconds)
            written = progress.add_task("bytes written", total=sum(job.layout.nbytes for job in jobs), note="")
            works = [start(job, lambda nbytes: progress.advance(written, nbytes), opened) for job in jobs]
            write_weights(works, seconds, progress)
            with stage(seconds, "hash"):
                source = {
                    "model": source_name(ways[0]),
                    "revision": ways[0].revision,
                    "sha256": digests.result(),
                }
            reports = iter([finish(work, before, source, seconds) for work in works])
    return [next(reports) if isinstance(outcome, Job) else outcome for outcome in outcomes]


@contextmanager
def stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the block's wall-clock time to `seconds[name]`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


def warm_up(jobs: Sequence[Job]) -> None:
    """Imports JAX and compiles what comes first, for methods that compute; copying needs no JAX.

    This also keeps the import out of the time when the output's folder exists: an import that is interrupted can abort
    the process, which would leave the folder behind.
    """
    if any(job.computed for job in jobs):
        from lesa_jax.growth.compute import compile_first

        compile_first(jobs[0].checkpoint, [order_of(job) for job in jobs if job.computed])


def order_of(job: Job) -> "Growing":
    """What is to be computed for one way."""
    from lesa_jax.growth.compute import Growing  # with JAX, which copying does not need
    from lesa_jax.initializers.lesa.predictor import PredictorSettings

    settings = job.settings
    initialiser = find_method(settings.method).initialiser
    assert not isinstance(initialiser, Copy)
    predictor = PredictorSettings(
        hidden_size=settings.hidden_size,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        norm_weight=settings.norm_weight,
    )
    return Growing(job.computed, initialiser, settings.seed, predictor)


def measure_before(jobs: Sequence[Job], seconds: dict[str, float]) -> float | None:
    """Perplexity of the original, where a way asks for it; all ask for the same."""
    asking = [job for job in jobs if job.text is not None]
    if not asking:
        return None
    with stage(seconds, "perplexity"):
        return measure(asking[0].checkpoint.folder, asking[0])


def start(job: Job, advance: Callable[[int], None], opened: ExitStack) -> Work:
    """Opens the output's folder and files; unless `finish` closes them, they vanish with `opened`."""
    closing = opened.enter_context(ExitStack())
    folder = closing.enter_context(publish(job.settings.output))
    writer = TensorWriter(folder, job.layout, advance)
    closing.callback(writer.abandon)
    return Work(job, folder, writer, closing, order_of(job) if job.computed else None)


def write_weights(works: Sequence[Work], seconds: dict[str, float], progress: Progress) -> None:
    """Writes every tensor of the grown models: computed, copied, averaged or zero."""
    computing = [(work, work.growing) for work in works if work.growing is not None]
    if computing:
        from lesa_jax.growth.compute import compute_new_layers

        with stage(seconds, "compute"):
            outlets = [(growing, work.writer) for work, growing in computing]
            compute_new_layers(works[0].job.checkpoint, outlets, progress)
    with stage(seconds, "copy"):
        checkpoint = works[0].job.checkpoint
        fine = [work for work in works if work.growing is None or work.growing.failure is None]
        rest = [[(work, part) for part in work.job.parts if part.made != "computed"] for work in fine]
        for work, part in heapq.merge(*rest, key=lambda item: place_in_source(checkpoint, item[1])):
            work.writer.write(part.name, part_bytes(checkpoint, part))
            release(checkpoint)
        for work in fine:
            work.writer.close()
            write_index(work.folder, work.job.layout)


def place_in_source(checkpoint: Checkpoint, part: Part) -> tuple[Path, int]:
    """Where the original of a tensor lies, so that several outputs take it from the disk together."""
    entry = checkpoint.entries[part.stack.name(*part.numbers)]
    return entry.file, entry.start


def part_bytes(checkpoint: Checkpoint, part: Part) -> bytes | memoryview:
    """The bytes of a tensor that is not computed."""
    if part.made == "copy" and part.scale == 1:
        return read_bytes(checkpoint, checkpoint.entries[part.sources[0]])
    dtype = DTYPES[part.stack.kind.dtype]
    if part.made == "zero":
        return np.zeros(part.stack.kind.shape, dtype).tobytes()
    mean = np.mean([read(checkpoint, name).astype(np.float64) for name in part.sources], axis=0)
    return (part.scale * mean).astype(dtype).tobytes()


def finish(work: Work, before: float | None, source: Mapping[str, Any], seconds: dict[str, float]) -> Outcome:
    """Writes what belongs beside the weights, measures, and publishes the output; or reports why it cannot."""
    job = work.job
    try:
        if work.growing is not None and work.growing.failure is not None:
            raise work.growing.failure
        carry(job.carried, work.folder)
        write_json(work.folder / "config.json", job.config)
        if job.calibration_text is not None:
            from lesa_jax.growth.calibrate import calibrate

            with stage(seconds, "calibrate"):
                work.scales, work.losses = calibrate(work.folder, job.layout, job.parts, job.plan, job.calibration_text)
        if job.text is not None and before is not None:
            with stage(seconds, "perplexity"):
                work.perplexity = {"before": before, "after": measure(work.folder, job)}
        report = summarise(job, seconds, work)
        write_json(work.folder / GROWTH_FILE, record(job, source, report).to_json())
        write_text(work.folder / "README.md", model_card(report, str(source["model"])))
        work.closing.close()
    except InputError as error:
        work.closing.__exit__(type(error), error, None)
        return error
    return report


def measure(folder: Path, job: Job) -> float:
    """Perplexity of the checkpoint in `folder` on the evaluation text."""
    from lesa_jax.evaluation.run import EvaluateSettings, evaluate_text

    assert job.text is not None
    options = EvaluateSettings(
        str(folder), ppl_protocol=job.settings.ppl_protocol, sequence_length=job.settings.sequence_length
    )
    return evaluate_text(job.text, options)["perplexity"]


def summarise(job: Job, seconds: Mapping[str, float], work: Work | None = None) -> ExpandReport:
    floats = [part for part in job.parts if part.stack.kind.dtype in FLOATS]
    sizes = [math.prod(part.stack.kind.shape) for part in floats]
    kinds: Mapping[str, KindReport] = work.growing.kinds if work and work.growing else {}
    return ExpandReport(
        method=job.settings.method,
        output=job.settings.output,
        plan=job.plan,
        parameters=(job.checkpoint.parameters, sum(sizes)),
        new_parameters=sum(size for part, size in zip(floats, sizes, strict=True) if part.new),
        nbytes=job.layout.nbytes,
        perplexity=work.perplexity if work else {},
        kinds=kinds,
        silenced=tuple(sorted({kind_name(part.stack) for part in job.parts if part.made == "zero"})),
        scales=work.scales if work else (),
        losses=work.losses if work else {},
        seconds=dict(seconds),
        peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        estimated_memory=computation_memory(job.computed),
        dry_run=job.settings.dry_run,
    )


def record(job: Job, source: Mapping[str, Any], report: ExpandReport) -> Growth:
    """growth.json of the output."""
    measurements = {
        "parameters": {"before": report.parameters[0], "after": report.parameters[1]},
        "perplexity": report.perplexity,
        "kinds": {name: asdict(kind) for name, kind in report.kinds.items()},
    }
    if report.scales:
        measurements["calibration"] = {"scales": list(report.scales), "losses": report.losses}
    return Growth(job.settings.method, job.plan, recorded_settings(job.settings), source, measurements)


def expand(settings: ExpandSettings) -> ExpandReport:
    """Grows a checkpoint; see `ExpandSettings`.

    Returns:
      What was done and measured; for a dry run, what would be done.

    Raises:
      InputError: bad input, found before anything is written; nothing carries the output's name then.
    """
    [outcome] = grow([settings])
    if isinstance(outcome, InputError):
        raise outcome
    return outcome
