"""A training run from its settings to its result: data, weights, the loop, and the trained model as a checkpoint."""

import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.base.console import progress_bars
from lesa_jax.checkpoint.names import Tree
from lesa_jax.data import open_data
from lesa_jax.data.loader import Loader, make_loader
from lesa_jax.data.packing import PackedRows
from lesa_jax.data.sources import find_files
from lesa_jax.parallel.mesh import BATCH
from lesa_jax.parallel.processes import join_processes
from lesa_jax.planning.record import FILE as GROWTH_FILE
from lesa_jax.training.card import trained_card
from lesa_jax.training.checkpoints import Checkpoints
from lesa_jax.training.cost import estimate_seconds
from lesa_jax.training.export import export
from lesa_jax.training.folder import check_run, start_run
from lesa_jax.training.held_out import make_evaluation
from lesa_jax.training.job import TrainJob, make_train_job
from lesa_jax.training.loop import loop
from lesa_jax.training.result import TrainResult, describe
from lesa_jax.training.settings import TrainSettings
from lesa_jax.training.start import start


def train(settings: TrainSettings) -> TrainResult:
    """Trains a model; see `TrainSettings`. Goes on with a run that is already in the output folder.

    Returns:
      What was done and measured; for a dry run, what would be done.

    Raises:
      InputError: bad input, found before anything is written; a loss that is not finite; a full disk.
    """
    if settings.devices.distributed:
        join_processes()
    job = make_train_job(settings)
    check_run(job)
    report = describe(job)
    if settings.dry_run:
        return replace(report, step_seconds=estimate_seconds(report.cost, job.step_tokens, job.frozen_dtype))
    start_run(job)
    rows = read_data(job)
    with ExitStack() as stack:
        checkpoints = Checkpoints(settings.output / "checkpoints", settings.keeping.keep)
        stack.callback(checkpoints.close)
        evaluation = make_evaluation(job)
        run = start(job, checkpoints)
        loader = local_loader(job, rows)
        stack.callback(loader.close)
        if run.loader_state is not None:
            loader.set_state(run.loader_state)
        interrupted = loop(job, run, loader, checkpoints, evaluation)
    done = int(run.state.step)
    stopped = done < report.steps
    if not stopped and settings.keeping.export == "hf":
        write_final(job, run.state.params)
    losses = run.first_eval, run.last_eval
    return replace(
        report,
        done=done,
        stopped=stopped,
        interrupted=interrupted,
        losses=losses,
        seconds=time.monotonic() - run.started,
    )


def read_data(job: TrainJob) -> PackedRows:
    """The packed rows of `--data`, tokenised now or found in the cache."""
    settings = job.settings
    assert settings.data is not None
    local = [] if settings.data.startswith("hf://") else find_files(settings.data)
    with progress_bars() as progress:
        task = progress.add_task("tokenising", total=sum(file.stat().st_size for file in local) or None, note="")
        rows = open_data(
            settings.data,
            settings.stage,
            job.tokenizer,
            job.folder,
            job.config.vocab_size,
            job.sequence_length,
            settings.keeping.token_cache or settings.output / "tokens",
            advance=lambda nbytes: progress.advance(task, nbytes),
        )
    for count, what in ((rows.store.truncated, "were cut at --sequence-length"), (rows.store.dropped, "teach nothing")):
        if count and jax.process_index() == 0:
            print(f"{settings.data}: {count} records {what}", file=sys.stderr)
    return rows


def local_loader(job: TrainJob, rows: PackedRows) -> Loader:
    """Batches of the sequences that this process's devices work on."""
    batch = job.settings.batch
    sequences, length = batch.batch_size // batch.accumulate, job.sequence_length
    shards = NamedSharding(job.mesh, P(BATCH)).addressable_devices_indices_map((sequences, length)).values()
    first = min(index[0].indices(sequences)[0] for index in shards if index)
    last = max(index[0].indices(sequences)[1] for index in shards if index)
    share = last - first
    local = share * batch.accumulate
    return make_loader(rows, local, job.settings.seed, first // share, sequences // share)


def write_final(job: TrainJob, params: Tree) -> None:
    """RUN/final: the trained model as a Hugging Face checkpoint."""
    documents: dict[str, Any] = {"config.json": job.hf_config, "README.md": trained_card(job)}
    if job.growth is not None:
        documents[GROWTH_FILE] = job.growth.to_json()
    folder = job.settings.output / "final"
    export(folder, params, job.leaves, job.specs, job.checkpoint, job.config, documents, job.folder)
