"""Continual pre-training and fine-tuning: `python -m lesa_jax.train --model DIR --data FILES --tokens N --output RUN`.

By default only the new layers of a grown model are trained (arXiv 2502.13794, section 3.3); growth.json names them.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.cli import progress_bars, run_command
from lesa_jax.data import Loader, PackedRows, find_files, make_loader, open_data
from lesa_jax.errors import InputError
from lesa_jax.evaluation import Evaluation, make_evaluation
from lesa_jax.export import export
from lesa_jax.flops import device_peak, token_cost
from lesa_jax.growth import FILE as GROWTH_FILE
from lesa_jax.parameters import load_leaves, load_model_leaves, random_weights
from lesa_jax.run_log import Display, RunLog
from lesa_jax.segments import Tree
from lesa_jax.sharding import BATCH, join_processes
from lesa_jax.state import Checkpoints, abstract_state
from lesa_jax.step import Batch, TrainState, compile_step, first_state, state_shardings
from lesa_jax.train_job import Job, frozen_dtype, prepare, start_run
from lesa_jax.train_report import TrainReport, plan_report, print_train_report, trained_card
from lesa_jax.train_settings import TrainSettings


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


@dataclass
class Run:
    """A run under way. `state` is given away and replaced in every step."""

    state: TrainState
    frozen: Tree
    placed: TrainState
    loader_state: dict[str, Any] | None
    started: float = field(default_factory=time.monotonic)
    first_eval: float | None = None
    last_eval: float | None = None


def start(job: Job, checkpoints: Checkpoints) -> Run:
    """Weights on their devices: from the run's last checkpoint, or from the model."""
    if job.checkpoint is None:
        deviation = float(job.hf_config.get("initializer_range", 0.02))
        fill = random_weights(job.settings.seed, deviation)
        trained, frozen = load_leaves(job.leaves, fill, job.shardings, frozen_dtype(job))
    else:
        trained, frozen = load_model_leaves(job.checkpoint, job.leaves, job.shardings, frozen_dtype(job))
    placed = state_shardings(trained, job.shardings, job.mesh, job.optimizer)
    state = first_state(trained, job.optimizer, placed)
    if checkpoints.latest is None:
        return Run(state, frozen, placed, None)
    facts = checkpoints.facts()
    if facts.get("identity") != job.identity:
        raise InputError(f"{checkpoints.folder}: checkpoints of another model or plan; choose another --output")
    abstract = abstract_state(state, placed)
    jax.tree.map(lambda x: x.delete(), state)  # not both states at once
    run = Run(checkpoints.restore(abstract), frozen, placed, facts["loader"])
    run.first_eval, run.last_eval = facts["first_eval"], facts["last_eval"]
    return run


def local_loader(job: Job, rows: PackedRows) -> Loader:
    """Batches of the sequences that this process's devices work on."""
    sequences, length = job.settings.batch_size // job.settings.accumulate, job.sequence_length
    shards = NamedSharding(job.mesh, P(BATCH)).addressable_devices_indices_map((sequences, length)).values()
    first = min(index[0].indices(sequences)[0] for index in shards if index)
    last = max(index[0].indices(sequences)[1] for index in shards if index)
    share = last - first
    local = share * job.settings.accumulate
    return make_loader(rows, local, job.settings.seed, first // share, sequences // share)


def device_batch(job: Job, rows: dict[str, np.ndarray]) -> Batch:
    """A loader's batch [sequences, tokens] as a global one [accumulate, sequences, tokens] on the mesh."""
    sharding = NamedSharding(job.mesh, P(None, BATCH))
    parts = job.settings.accumulate
    shape = (parts, job.settings.batch_size // parts, job.sequence_length)

    def place(x: np.ndarray) -> jax.Array:
        local = np.ascontiguousarray(x).reshape(parts, -1, x.shape[-1])
        return jax.make_array_from_process_local_data(sharding, local, shape)

    return Batch(
        place(rows["tokens"]),
        place(rows["targets"]),
        place(rows["segment_ids"]),
        place(rows["positions"]),
        place(rows["weights"]),
    )


def loop(job: Job, run: Run, loader: Loader, checkpoints: Checkpoints, evaluation: Evaluation | None) -> bool:
    """Trains to the end, or until asked to stop; returns whether it was stopped.

    A step's numbers are fetched when the next one is on its way, so that the devices never wait for the host.
    """
    settings, total = job.settings, job.optimizer.steps
    step_program = compile_step(job.program, job.optimizer, run.placed, job.mesh)
    done = int(run.state.step)
    clock = Clock(job)
    writes = jax.process_index() == 0
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signal())
        log = stack.enter_context(RunLog(settings.output, done)) if writes else None
        display = stack.enter_context(Display(total, done)) if writes else None

        def finish(step: int, metrics: dict[str, jax.Array], measure: bool = False) -> None:
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if not values.pop("sound"):
                raise InputError(
                    f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']} on batch {step} of "
                    f"--seed {settings.seed}; neither weights nor checkpoints were touched: lower --learning-rate in a "
                    "new run, or look at the data"
                )
            values |= clock.lap()
            eval_loss = evaluate(step) if measure else None
            if log is not None and display is not None:
                row = {**values, "tokens": clock.tokens_seen(step), "eval_loss": eval_loss}
                log.write(step, row)
                display.update(step, row)

        def evaluate(step: int) -> float | None:
            if evaluation is None:
                return None
            loss = evaluation(run.state.params, run.frozen)
            run.first_eval = loss if run.first_eval is None else run.first_eval
            run.last_eval = loss
            clock.pause()
            return loss

        if done == 0 and evaluation is not None:
            first = evaluate(0)
            if log is not None:
                log.write(0, {"tokens": 0, "eval_loss": first})
        pending: tuple[int, dict[str, jax.Array]] | None = None
        saved = done
        while done < total and not stop(done):
            batch = device_batch(job, next(loader))
            run.state, metrics = step_program(run.state, run.frozen, batch)
            done += 1
            if pending is not None:
                finish(*pending)
            pending = done, metrics
            due = evaluation is not None and (done % settings.eval_every == 0 or done == total)
            if due or done % settings.save_every == 0 or done == total:
                finish(done, metrics, measure=due)
                pending = None
            if done % settings.save_every == 0 or done == total:
                save(job, run, loader, checkpoints, done)
                saved = done
                clock.pause()
        if pending is not None:
            finish(*pending)
        if saved < done:
            save(job, run, loader, checkpoints, done)
    return done < total


def save(job: Job, run: Run, loader: Loader, checkpoints: Checkpoints, step: int) -> None:
    facts = {
        "identity": job.identity,
        "loader": loader.get_state(),
        "first_eval": run.first_eval,
        "last_eval": run.last_eval,
    }
    checkpoints.save(run.state, step, facts)


class Clock:
    """Tokens a second and model FLOPs utilisation, from one fetched step to the next."""

    def __init__(self, job: Job):
        self.step_tokens = job.settings.batch_size * job.sequence_length
        self.cost = token_cost(job.config, job.leaves, job.sequence_length).total
        peak = device_peak()
        self.peak = None if peak is None else peak * jax.device_count()
        self.last: float | None = None

    def pause(self) -> None:
        """What comes now is no training."""
        self.last = None

    def tokens_seen(self, step: int) -> int:
        return step * self.step_tokens

    def lap(self) -> dict[str, float | None]:
        now = time.monotonic()
        rate = None if self.last is None else self.step_tokens / (now - self.last)
        self.last = now
        mfu = None if rate is None or self.peak is None else rate * self.cost / self.peak
        return {"tokens_per_second": rate, "mfu": mfu}


@contextmanager
def stop_signal() -> Iterator[Callable[[int], bool]]:
    """Whether to stop before a step: after SIGTERM or Ctrl-C, on all processes at the same step.

    With several processes, JAX's own preemption service takes SIGTERM and agrees on the step.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = []

    def ask(signum: int, frame: FrameType | None) -> None:
        if asked:  # a second time: at once
            raise KeyboardInterrupt
        asked.append(signum)

    before = [(number, signal.signal(number, ask)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield lambda step: bool(asked)
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def write_final(job: Job, params: Tree) -> None:
    """RUN/final: the trained model as a Hugging Face checkpoint."""
    documents: dict[str, Any] = {"README.md": trained_card(job)}
    if job.growth is not None:
        documents[GROWTH_FILE] = job.growth.to_json()
    folder = job.settings.output / "final"
    export(folder, params, job.leaves, job.kinds, job.checkpoint, job.hf_config, documents, job.folder)


def main() -> int:
    return run_command(
        train,
        TrainSettings,
        print_train_report,
        interrupted="run the same command again to go on from the last checkpoint",
    )


if __name__ == "__main__":
    sys.exit(main())
