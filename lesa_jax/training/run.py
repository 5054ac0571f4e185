"""Continual pre-training and fine-tuning: `python -m lesa_jax.train --model DIR --data FILES --tokens N --output RUN`.

By default only the new layers of a grown model are trained (arXiv 2502.13794, section 3.3); growth.json names them.
"""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.base.console import progress_bars
from lesa_jax.base.errors import InputError
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
from lesa_jax.training.export import export
from lesa_jax.training.held_out import make_evaluation
from lesa_jax.training.job import Job, frozen_dtype, prepare, start_run
from lesa_jax.training.loop import loop
from lesa_jax.training.parameters import Leaf, abstract_leaves, load_leaves, load_model_leaves, random_weights
from lesa_jax.training.report import TrainReport, plan_report
from lesa_jax.training.settings import TrainSettings
from lesa_jax.training.state import Run, TrainState, abstract_state, first_state, state_shardings


def train(settings: TrainSettings) -> TrainReport:
    """Trains a model; see `TrainSettings`. Goes on with a run that is already in the output folder.

    Returns:
      What was done and measured; for a dry run, what would be done.

    Raises:
      InputError: bad input, found before anything is written; a loss that is not finite; a full disk.
    """
    if settings.distributed:
        join_processes()
    job = prepare(settings)
    report = plan_report(job)
    if settings.dry_run:
        return report
    start_run(job)
    rows = read_data(job)
    with ExitStack() as stack:
        checkpoints = Checkpoints(settings.output / "checkpoints", settings.keep)
        stack.callback(checkpoints.close)
        evaluation = make_evaluation(job)
        run = start(job, checkpoints)
        loader = local_loader(job, rows)
        stack.callback(loader.close)
        if run.loader_state is not None:
            loader.set_state(run.loader_state)
        stopped = loop(job, run, loader, checkpoints, evaluation)
    done = int(run.state.step)
    if not stopped and settings.export == "hf":
        write_final(job, run.state.params)
    return report.after(done, stopped, run.first_eval, run.last_eval, time.monotonic() - run.started)


def read_data(job: Job) -> PackedRows:
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
            settings.token_cache or settings.output / "tokens",
            advance=lambda nbytes: progress.advance(task, nbytes),
        )
    for count, what in ((rows.store.truncated, "were cut at --sequence-length"), (rows.store.dropped, "teach nothing")):
        if count and jax.process_index() == 0:
            print(f"{settings.data}: {count} records {what}", file=sys.stderr)
    return rows


def start(job: Job, checkpoints: Checkpoints) -> Run:
    """Weights on their devices: from the run's last checkpoint, or from the model."""
    shapes = abstract_leaves([leaf for leaf in job.leaves if leaf.trained], job.shardings)
    placed = state_shardings(shapes, job.shardings, job.mesh, job.optimizer)
    if checkpoints.latest is not None:
        return resume(job, checkpoints, abstract_state(shapes, job.optimizer, placed), placed)
    trained, frozen = load_weights(job, job.leaves)
    return Run(first_state(trained, job.optimizer, placed), frozen, placed)


def resume(job: Job, checkpoints: Checkpoints, abstract: TrainState, placed: TrainState) -> Run:
    """The run as its last checkpoint has it; the model's files give the frozen weights only."""
    facts = checkpoints.facts()
    if facts.get("identity") != job.identity:
        raise InputError(f"{checkpoints.folder}: checkpoints of another model or plan; choose another --output")
    state = checkpoints.restore(abstract)
    _, frozen = load_weights(job, [leaf for leaf in job.leaves if not leaf.trained])
    return Run(state, frozen, placed, facts["loader"], facts["first_eval"], facts["last_eval"])


def load_weights(job: Job, leaves: Sequence[Leaf]) -> tuple[Tree, Tree]:
    """Trained and frozen tree of `leaves`: from the model's files, or fresh ones."""
    if job.checkpoint is not None:
        return load_model_leaves(job.checkpoint, leaves, job.shardings, frozen_dtype(job))
    deviation = float(job.hf_config.get("initializer_range", 0.02))
    return load_leaves(leaves, random_weights(job.settings.seed, deviation), job.shardings, frozen_dtype(job))


def local_loader(job: Job, rows: PackedRows) -> Loader:
    """Batches of the sequences that this process's devices work on."""
    sequences, length = job.settings.batch_size // job.settings.accumulate, job.sequence_length
    shards = NamedSharding(job.mesh, P(BATCH)).addressable_devices_indices_map((sequences, length)).values()
    first = min(index[0].indices(sequences)[0] for index in shards if index)
    last = max(index[0].indices(sequences)[1] for index in shards if index)
    share = last - first
    local = share * job.settings.accumulate
    return make_loader(rows, local, job.settings.seed, first // share, sequences // share)


def write_final(job: Job, params: Tree) -> None:
    """RUN/final: the trained model as a Hugging Face checkpoint."""
    documents: dict[str, Any] = {"config.json": job.hf_config, "README.md": trained_card(job)}
    if job.growth is not None:
        documents[GROWTH_FILE] = job.growth.to_json()
    folder = job.settings.output / "final"
    export(folder, params, job.leaves, job.kinds, job.checkpoint, job.config, documents, job.folder)
