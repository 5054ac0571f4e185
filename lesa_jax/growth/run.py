"""Grows a checkpoint in any number of ways at once: every tensor of the original is read, taken apart and learned once.

`expand` is the case of one way, `compare` that of many.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from lesa_jax.base.console import progress_bars
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import write_json, write_text
from lesa_jax.base.folders import claim
from lesa_jax.base.scratch import Scratch
from lesa_jax.base.settings import by_name
from lesa_jax.base.stages import stage
from lesa_jax.checkpoint.companions import carry, left_behind
from lesa_jax.checkpoint.integrity import Digests, verified_beside
from lesa_jax.checkpoint.publishing import check_push, push
from lesa_jax.checkpoint.reader import Checkpoint, check_unchanged
from lesa_jax.checkpoint.writer import write_index
from lesa_jax.evaluation.settings import EvaluateSettings
from lesa_jax.growth.card import model_card
from lesa_jax.growth.copying import write_copies
from lesa_jax.growth.job import ExpandJob, check_room, open_source, prepare_jobs, source_name
from lesa_jax.growth.output import Output
from lesa_jax.growth.result import ExpandResult
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.growth.summary import growth_record, summarise, would_be
from lesa_jax.models.config import read_model
from lesa_jax.planning.methods import Lesa
from lesa_jax.planning.record import FILE as GROWTH_FILE

# Modules that need JAX are imported where they are used: copying needs none, and starts seconds sooner without.

Outcome = ExpandResult | InputError


@by_name(ExpandSettings)
def expand(settings: ExpandSettings) -> ExpandResult:
    """Grows a checkpoint; see `ExpandSettings`.

    Returns:
      What was done and measured; for a dry run, what would be done.

    Raises:
      InputError: bad input, found before anything is written; nothing carries the output's name then. Or the output is
        complete and its upload failed.
    """
    hub = None if settings.dry_run else settings.push_to_hub
    if hub is not None:
        check_push(hub)
    [outcome] = grow([settings])
    if isinstance(outcome, InputError):
        raise outcome
    if hub is not None:
        push(outcome.output, hub)
    return outcome


def grow(wanted: Sequence[ExpandSettings]) -> list[Outcome]:
    """Grows one original in several ways.

    Args:
      wanted: of one model and revision, each with an output of its own.

    Returns:
      For each, what was done and measured, or for a dry run what would be done; or why it cannot be done. One that
      fails leaves nothing under its output's name, and the others go on.

    Raises:
      InputError: the original cannot be used.
    """
    seconds: dict[str, float] = {}
    with ExitStack() as opened:
        with stage(seconds, "check"):
            checkpoint = open_source(wanted[0])
            digests = opened.enter_context(verified_beside(None if wanted[0].dry_run else checkpoint))
            prepared = prepare_jobs(wanted, checkpoint)
            jobs = [job for job in prepared if isinstance(job, ExpandJob)]
            for file in left_behind(checkpoint.folder) if jobs else ():
                print(f"does not go along: {file}", file=sys.stderr)
            if wanted[0].dry_run or not jobs:
                return [job if isinstance(job, InputError) else planned(job, seconds) for job in prepared]
            check_room(jobs)
            for job in jobs:
                opened.enter_context(claim(job.settings.output))
            if any(job.computed for job in jobs):
                warm_up(jobs)
                digests()  # before numbers that are none are worked with; copies find them on their way
        progress = opened.enter_context(progress_bars())
        before = measure_before(jobs, seconds)
        bar = progress.add_task("bytes written", total=sum(job.layout.nbytes for job in jobs), note="")
        outputs = [opened.enter_context(Output(job, lambda n: progress.advance(bar, n))) for job in jobs]
        write_weights(outputs, seconds, progress)
        source = identify_source(wanted[0], checkpoint, digests, seconds)
        outcomes = iter([finish(output, before, source, seconds) for output in outputs])
    return [job if isinstance(job, InputError) else next(outcomes) for job in prepared]


def planned(job: ExpandJob, seconds: dict[str, float]) -> ExpandResult:
    """What a dry run says; of LESA how long it will take, too. What else is made takes the disk's time."""
    result = would_be(job, seconds)
    if not isinstance(job.method.start, Lesa):
        return result
    from lesa_jax.growth.expected import expected_seconds

    return replace(result, expected_seconds=expected_seconds(job))


def identify_source(
    settings: ExpandSettings, checkpoint: Checkpoint, digests: Callable[[], Digests], seconds: dict[str, float]
) -> Mapping[str, Any]:
    """What the outputs say of their source. Raises InputError if its files have changed since they were opened."""
    with stage(seconds, "hash"):
        sha256 = digests()
        check_unchanged(checkpoint)  # so that these are the digests of what was read
        return {"model": source_name(settings), "revision": settings.revision, "sha256": sha256}


def warm_up(jobs: Sequence[ExpandJob]) -> None:
    """Imports JAX and compiles what comes first, for methods that compute.

    This also keeps the import out of the time when the output's folder exists: an import that is interrupted can abort
    the process, which would leave the folder behind.
    """
    from lesa_jax.growth.compute import compile_first

    compile_first([job for job in jobs if job.computed])


def measure_before(jobs: Sequence[ExpandJob], seconds: dict[str, float]) -> float | None:
    """Perplexity of the original, where a job asks for it; all ask for the same."""
    asking = [job for job in jobs if job.text is not None]
    if not asking:
        return None
    with stage(seconds, "perplexity"):
        return measure_perplexity(asking[0].checkpoint.folder, asking[0])


def write_weights(outputs: Sequence[Output], seconds: dict[str, float], progress: Progress) -> None:
    """Writes every tensor of the grown models: computed, copied, averaged or zero."""
    checkpoint = outputs[0].job.checkpoint
    computing = [output for output in outputs if output.job.computed]
    if computing:
        from lesa_jax.growth.compute import compute_new_layers

        room = Scratch(computing[0].folder, min(output.job.memory.room for output in computing))
        compute_new_layers(checkpoint, computing, room, seconds, progress)
    with stage(seconds, "copy"):
        write_copies(checkpoint, outputs)
        for output in outputs:
            if output.failure is None:
                output.writer.close()
                write_index(output.folder, output.job.layout)


def finish(output: Output, before: float | None, source: Mapping[str, Any], seconds: dict[str, float]) -> Outcome:
    """Writes what belongs beside the weights, measures, and publishes the output; or reports why it cannot."""
    job = output.job
    scales, losses, perplexity, checked, routers = (), {}, {}, 0, ()
    try:
        if output.failure is not None:
            raise output.failure
        carry(job.companions, job.checkpoint.folder, output.folder)
        write_json(output.folder / "config.json", job.config)
        if job.routers_text is not None or job.calibration_text is not None:
            output.journal.forget()
        if job.orders and (text := job.routers_text or job.text) is not None:
            from lesa_jax.evaluation.sample import sample_rows
            from lesa_jax.growth.routers import check_routers

            with stage(seconds, "routers"):
                rows = sample_rows(output.folder, text, read_model(job.checkpoint))
                layout = None if job.routers_text is None else job.layout
                routers = check_routers(job.checkpoint, output.folder, job.plan, job.orders, rows, layout)
        if job.calibration_text is not None:
            from lesa_jax.growth.calibrate import calibrate

            with stage(seconds, "calibrate"):
                scales, losses = calibrate(output.folder, job.layout, job.parts, job.plan, job.calibration_text)
        if job.preserves and job.runs:
            from lesa_jax.growth.preserved import check_preserved

            with stage(seconds, "verify"):
                checked = check_preserved(job.checkpoint, output.folder, job.plan)
        if job.text is not None and before is not None:
            with stage(seconds, "perplexity"):
                perplexity = {"before": before, "after": measure_perplexity(output.folder, job)}
        result = summarise(job, seconds, output.kinds, perplexity, scales, losses, checked, routers)
        write_json(output.folder / GROWTH_FILE, growth_record(job, source, result).to_json())
        write_text(output.folder / "README.md", model_card(result, str(source["model"]), job.checkpoint.folder))
        output.publish()
    except InputError as error:
        output.discard(error)
        return error
    return result


def measure_perplexity(folder: Path, job: ExpandJob) -> float:
    """Of the checkpoint in `folder`, on the job's text."""
    from lesa_jax.evaluation.run import evaluate_text

    assert job.text is not None
    options = EvaluateSettings(
        str(folder), ppl_protocol=job.settings.ppl_protocol, sequence_length=job.settings.sequence_length
    )
    return evaluate_text(job.text, options)["perplexity"]
