"""A training run from its settings to its result: data, weights, the loop, and the trained model as a checkpoint."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.base.console import progress_bars
from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import by_name
from lesa_jax.checkpoint.integrity import verified_beside
from lesa_jax.checkpoint.names import Tree
from lesa_jax.checkpoint.publishing import check_push, push
from lesa_jax.data import open_data
from lesa_jax.data.loader import Loader, make_loader
from lesa_jax.data.mixture import Mixture
from lesa_jax.data.sources import find_files, split_shares
from lesa_jax.parallel.mesh import BATCH
from lesa_jax.parallel.processes import from_first, join_processes
from lesa_jax.planning.record import FILE as GROWTH_FILE
from lesa_jax.tracking.trackers import parse_trackers, sign_in
from lesa_jax.training.card import trained_card
from lesa_jax.training.checkpoints import Checkpoints
from lesa_jax.training.cost import estimate_seconds
from lesa_jax.training.export import export
from lesa_jax.training.folder import FINAL, begin_run, check_run, hold_run
from lesa_jax.training.held_out import make_evaluation
from lesa_jax.training.inputs import digest_inputs
from lesa_jax.training.job import TrainJob, make_train_job
from lesa_jax.training.loop import loop
from lesa_jax.training.memory import enough_memory
from lesa_jax.training.record import trained_growth
from lesa_jax.training.result import Losses, TrainResult, describe, paired, without_kernel
from lesa_jax.training.settings import TrainSettings
from lesa_jax.training.start import start


@by_name(TrainSettings)
def train(settings: TrainSettings) -> TrainResult:
    """Trains a model; see `TrainSettings`. Goes on with a run that is already in the output folder.

    A run that is finished stays as it is, and its result is given again. SIGTERM or Ctrl-C while steps are done saves
    the run and returns, `interrupted`; before and after it raises KeyboardInterrupt.

    Returns:
      What was done and measured; for a dry run, what would be done.

    Raises:
      InputError: bad input, found before anything is written; other inputs than an earlier run's in the output folder,
        or a damaged one; a loss or an update that is not finite; a full disk or memory; an upload of final/
        that failed.
    """
    if settings.devices.distributed:
        join_processes()
    job = make_train_job(settings)
    report = describe(job)
    if settings.dry_run:
        check_run(job)
        return replace(report, step_seconds=estimate_seconds(report.cost, job.step_tokens, job.frozen_dtype))
    if report.no_kernel is not None and jax.process_index() == 0:
        print(f"attention: {without_kernel(report.no_kernel)}", file=sys.stderr)
    trackers = parse_trackers(settings.keeping.tracker)
    from_first(lambda: sign_in(trackers))
    if (hub := settings.keeping.push_to_hub) is not None:
        from_first(lambda: check_push(hub))
    with hold_run(job), enough_memory():
        result = run_job(job, report)
        if hub is not None and not result.stopped:
            from_first(lambda: push(settings.output / FINAL, hub))
    return result


def run_job(job: TrainJob, report: TrainResult) -> TrainResult:
    """The run, from what it reads to what it leaves; `report` is what is known of it before."""
    keeping = job.settings.keeping
    with ExitStack() as stack:
        # All that can be wrong with the inputs is found before run.json is written: a corrected command may follow.
        weights = stack.enter_context(verified_beside(job.checkpoint))
        rows, held = read_data(job)
        loader = local_loader(job, rows)
        stack.callback(loader.close)
        try_batch(loader)
        evaluation = make_evaluation(job, held)
        checkpoints = Checkpoints(job.settings.output / "checkpoints", keeping.keep, job.mesh)
        stack.callback(checkpoints.close)
        inputs = partial(digest_inputs, job, rows, weights)
        if (finished := finished_result(job, checkpoints, report)) is not None:
            begin_run(job, inputs)
            return finished
        run = start(job, checkpoints)
        record = begin_run(job, inputs)
        if run.record not in (None, record):
            raise InputError(f"{checkpoints.folder}: checkpoints of another run; choose another --output")
        run.record = record
        if run.loader_state is not None:
            loader.set_state(run.loader_state)
        interrupted = loop(job, run, loader, checkpoints, evaluation)
    done, losses = int(run.state.step), paired(run.first_losses, run.last_losses)
    stopped = done < report.steps or run.unmeasured is not None
    if keeping.export == "hf" and not stopped:
        stopped = interrupted
        if not interrupted:
            write_final(job, run.state.learned, losses)
    seconds = time.monotonic() - run.started
    told = {"losses": losses, "base_losses": run.base_losses, "seconds": seconds}
    return replace(report, done=done, stopped=stopped, interrupted=interrupted, **told)


def finished_result(job: TrainJob, checkpoints: Checkpoints, report: TrainResult) -> TrainResult | None:
    """The result of a run that is at its end, with its final/ if one is wanted; None if there is something to do."""
    final = job.settings.output / FINAL
    if checkpoints.latest is None and final.exists():
        raise InputError(
            f"{final}: is there, but the run's checkpoints are not; move it away to train again, or choose another "
            "--output"
        )
    if checkpoints.latest != report.steps or (job.settings.keeping.export == "hf" and not final.is_dir()):
        return None
    facts = checkpoints.facts()
    if facts["unmeasured"] is not None:
        return None
    losses = paired(facts["first_losses"], facts["last_losses"])
    return replace(report, done=report.steps, losses=losses, base_losses=facts["base_losses"])


def try_batch(loader: Loader) -> None:
    """Reads the first batch, to see that it can be read, and goes back."""
    place = loader.get_state()
    next(loader)
    loader.set_state(place)


def read_data(job: TrainJob) -> tuple[Mixture, Sequence[Mapping[str, np.ndarray]]]:
    """The packed rows of `--data`, tokenised now or found in the cache: those to train on, and those held out."""
    settings = job.settings
    assert settings.data is not None
    local = find_files(settings.data)
    with progress_bars() as progress:
        total = sum(file.stat().st_size for file in local) or None
        digests = progress.add_task("reading data", total=total, note="")
        task = progress.add_task("tokenising", total=total, note="")
        rows = open_data(
            settings.data,
            settings.stage,
            job.tokenizer,
            job.folder,
            job.config.vocab_size,
            job.sequence_length,
            settings.keeping.token_cache or settings.output / "tokens",
            advance=lambda nbytes: progress.advance(task, nbytes),
            hashed=lambda nbytes: progress.advance(digests, nbytes),
            start_token=None if job.config.encoder is None else job.config.start_token,
            seed=settings.seed,
        )
    for (data, _), part in zip(split_shares(settings.data), rows.parts, strict=True):
        store = part.store
        for count, what in ((store.truncated, "were cut at --sequence-length"), (store.dropped, "teach nothing")):
            if count and jax.process_index() == 0:
                print(f"{data}: {count} records {what}", file=sys.stderr)
    if settings.held_out.eval_text is not None:
        return rows, ()
    trained, held = rows.hold_out(settings.held_out.hold_out)
    if held and jax.process_index() == 0:
        print(f"held out: {len(held)} of {len(rows.parts[0]):,} sequences, to measure on", file=sys.stderr)
    return trained, held


def local_loader(job: TrainJob, rows: Mixture) -> Loader:
    """Batches of the sequences that this process's devices work on."""
    batch = job.settings.batch
    sequences, length = batch.batch_size // batch.accumulate, job.sequence_length
    shards = NamedSharding(job.mesh, P(BATCH)).addressable_devices_indices_map((sequences, length)).values()
    first = min(index[0].indices(sequences)[0] for index in shards if index)
    last = max(index[0].indices(sequences)[1] for index in shards if index)
    share = last - first
    local = share * batch.accumulate
    return make_loader(rows, local, job.settings.seed, first // share, sequences // share)


def write_final(job: TrainJob, params: Tree, losses: Losses) -> None:
    """RUN/final: the trained model as a Hugging Face checkpoint."""
    documents: dict[str, Any] = {"config.json": job.hf_config, "README.md": trained_card(job)}
    if job.growth is not None:
        documents[GROWTH_FILE] = trained_growth(job.growth, job, losses)
    folder = job.settings.output / FINAL
    try:
        export(folder, params, job.leaves, job.specs, job.checkpoint, job.config, documents, job.folder)
    except OSError as error:
        raise InputError(
            f"{folder}: could not be written ({error.strerror}); the trained state is kept in checkpoints/: free some "
            "space and run the same command again"
        ) from error
