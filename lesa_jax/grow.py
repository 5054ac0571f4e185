"""Grows a checkpoint in any number of ways at once: every tensor of the original is read, taken apart and learned once.

`expand` is the case of one way, `compare` that of many.
"""

import heapq
import math
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from rich.progress import Progress

from lesa_jax import demo
from lesa_jax.background import second_thread
from lesa_jax.carry import carry, files_to_carry
from lesa_jax.checkpoint import DTYPES, FLOATS, Checkpoint, open_checkpoint, read, read_bytes, release
from lesa_jax.cli import progress_bars, read_text
from lesa_jax.errors import InputError
from lesa_jax.expand_settings import (
    ExpandSettings,
    check_settings,
    norm_source,
    output_scale,
    parse_gaps,
    recorded_settings,
)
from lesa_jax.gate import check_silenceable
from lesa_jax.growth import FILE as GROWTH_FILE
from lesa_jax.growth import Growth
from lesa_jax.hf_config import find_layers, grow_configs_apart
from lesa_jax.hub import resolve_model
from lesa_jax.integrity import check_finite, hash_files
from lesa_jax.methods import Copy, find_method
from lesa_jax.plan import Plan, make_plan
from lesa_jax.recipe import Part, computation_memory, kind_name, write_recipe
from lesa_jax.report import ExpandReport, KindReport, model_card
from lesa_jax.writer import Layout, TensorWriter, check_output, lay_out, publish, write_index, write_json, write_text

if TYPE_CHECKING:
    from lesa_jax.compute import Growing

Outcome = ExpandReport | InputError
Value = TypeVar("Value")


@dataclass(frozen=True)
class Job:
    """Everything that is known of one way to grow, and was found good, before any weight is read."""

    settings: ExpandSettings
    checkpoint: Checkpoint
    plan: Plan
    config: Mapping[str, Any]
    parts: list[Part]
    layout: Layout
    carried: list[Path]
    text: str | None
    calibration_text: str | None

    @property
    def computed(self) -> list[Part]:
        return [part for part in self.parts if part.made == "computed"]


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


def open_source(settings: ExpandSettings) -> Checkpoint:
    if settings.model is None:
        return open_checkpoint(demo.MODEL_DIRECTORY)
    return open_checkpoint(resolve_model(settings.model, settings.revision))


def source_name(settings: ExpandSettings) -> str:
    """What the output calls its source: the hub id, or a folder's name without its path, which is nobody's business."""
    if settings.model is None:
        return "the lesa_jax demo model"
    folder = Path(settings.model).expanduser()
    return folder.resolve().name if folder.exists() else settings.model


@contextmanager
def stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the block's wall-clock time to `seconds[name]`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


def prepare(ways: Sequence[ExpandSettings], checkpoint: Checkpoint) -> list[Job | InputError]:
    """Makes the plans, and refuses whatever can be refused without reading weights."""
    prefix = find_layers(checkpoint.config, checkpoint.stacks)
    depth = max(s.starts[0] + s.sizes[0] for s in checkpoint.stacks if s.prefix == prefix)
    plans: list[Plan | InputError] = []
    for settings in ways:
        try:
            check_settings(settings)
            options = settings.layers, parse_gaps(settings.gaps), settings.placement, settings.every
            plans.append(make_plan(depth, settings.method, *options))
        except InputError as error:
            plans.append(error)
    distinct = list(dict.fromkeys(plan for plan in plans if isinstance(plan, Plan)))
    configs = dict(zip(distinct, grow_configs_apart(checkpoint.config, distinct), strict=True)) if distinct else {}
    jobs: list[Job | InputError] = []
    for settings, plan in zip(ways, plans, strict=True):
        try:
            jobs.append(make_job(settings, checkpoint, prefix, sound(plan), sound(configs[sound(plan)])))
        except InputError as error:
            jobs.append(error)
    return jobs


def sound(value: Value | InputError) -> Value:
    """The value, or its error raised."""
    if isinstance(value, InputError):
        raise value
    return value


def make_job(
    settings: ExpandSettings, checkpoint: Checkpoint, prefix: str, plan: Plan, config: Mapping[str, Any]
) -> Job:
    scale = output_scale(settings)
    if scale != 1 or settings.calibrate is not None:
        check_silenceable(checkpoint.config, checkpoint.stacks, prefix)
    method = find_method(settings.method)
    parts = write_recipe(checkpoint, prefix, plan, method, norm_source(settings), scale)
    layout = lay_out({part.name: part.stack.kind for part in parts}, round(settings.shard_size * 1e9))
    carried = files_to_carry(checkpoint.folder)
    text = evaluation_text(settings)
    calibration = None if settings.calibrate is None else read_text("--calibrate", settings.calibrate)
    if text is not None or calibration is not None:
        from lesa_jax.models.config import ModelConfig

        ModelConfig.from_hf(checkpoint.config)  # raises where there is no forward pass
    nbytes = layout.nbytes + sum(file.stat().st_size for file in carried)
    check_output(settings.output, checkpoint.folder, settings.overwrite, nbytes)
    return Job(settings, checkpoint, plan, config, parts, layout, carried, text, calibration)


def check_room(jobs: Sequence[Job]) -> None:
    """Refuses outputs that fit on the disk one by one, but not together."""
    needed = sum(job.layout.nbytes for job in jobs)
    folder = next(parent for parent in jobs[0].settings.output.resolve().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: {len(jobs)} grown models need {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free; "
            "grow fewer at a time, or choose another disk"
        )


def evaluation_text(settings: ExpandSettings) -> str | None:
    """The user's, or the demo model's own."""
    if settings.eval_text is not None:
        return read_text("--eval-text", settings.eval_text)
    return demo.evaluation_text() if settings.model is None else None


def warm_up(jobs: Sequence[Job]) -> None:
    """Imports JAX and compiles what comes first, for methods that compute; copying needs no JAX.

    This also keeps the import out of the time when the output's folder exists: an import that is interrupted can abort
    the process, which would leave the folder behind.
    """
    if any(job.computed for job in jobs):
        from lesa_jax.compute import compile_first

        compile_first(jobs[0].checkpoint, [order_of(job) for job in jobs if job.computed])


def order_of(job: Job) -> "Growing":
    """What is to be computed for one way."""
    from lesa_jax.compute import Growing  # with JAX, which copying does not need
    from lesa_jax.predictor import PredictorSettings

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
        from lesa_jax.compute import compute_new_layers

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
            from lesa_jax.calibrate import calibrate

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
    from lesa_jax.evaluate import EvaluateSettings, evaluate_text

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
