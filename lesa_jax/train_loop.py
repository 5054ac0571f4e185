"""The loop over training steps: batches in, metrics and checkpoints out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.data import Loader
from lesa_jax.errors import InputError
from lesa_jax.evaluation import Evaluation
from lesa_jax.flops import device_peak, token_cost
from lesa_jax.run_log import Display, RunLog
from lesa_jax.segments import Tree
from lesa_jax.sharding import BATCH
from lesa_jax.state import Checkpoints
from lesa_jax.step import Batch, TrainState, compile_step
from lesa_jax.stop import stop_signal
from lesa_jax.train_job import Job


@dataclass
class Run:
    """A run under way. `state` is given away and replaced in every step."""

    state: TrainState
    frozen: Tree
    placed: TrainState
    loader_state: dict[str, Any] | None = None
    first_eval: float | None = None
    last_eval: float | None = None
    started: float = field(default_factory=time.monotonic)


def loop(job: Job, run: Run, loader: Loader, checkpoints: Checkpoints, evaluation: Evaluation | None) -> bool:
    """Trains to the end, or until asked to stop; returns whether it was stopped.

    A step's numbers are fetched when the next one is on its way, so that the devices never wait for the host. But
    nothing is saved before they are seen to be finite.
    """
    settings, total = job.settings, job.optimizer.steps
    step_program = compile_step(job.program, job.optimizer, run.placed, job.mesh)
    done = saved = int(run.state.step)
    with stop_signal() as stop, recorder(job, run, evaluation) as record:
        if done == 0:
            record.untrained()
        while done < total and not stop():
            batch = device_batch(job, next(loader))
            run.state, metrics = step_program(run.state, run.frozen, batch)
            done += 1
            record.step(done, metrics)
            to_measure = evaluation is not None and (done % settings.eval_every == 0 or done == total)
            to_save = done % settings.save_every == 0 or done == total
            if to_measure or to_save:
                record.catch_up(to_measure)
            if to_save:
                save(job, run, loader, checkpoints, done)
                saved = done
                record.clock.pause()
        record.catch_up()
        if saved < done:
            save(job, run, loader, checkpoints, done)
    return done < total


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


def save(job: Job, run: Run, loader: Loader, checkpoints: Checkpoints, step: int) -> None:
    """A checkpoint of the state and of where data and measurements stand."""
    facts = {
        "identity": job.identity,
        "loader": loader.get_state(),
        "first_eval": run.first_eval,
        "last_eval": run.last_eval,
    }
    checkpoints.save(run.state, step, facts)


@contextmanager
def recorder(job: Job, run: Run, evaluation: Evaluation | None) -> Iterator["Recorder"]:
    """A recorder for this process: the first one writes, all of them check and measure."""
    if jax.process_index() > 0:
        yield Recorder(job, run, evaluation, None, None)
        return
    done = int(run.state.step)
    with RunLog(job.settings.output, done) as log, Display(job.optimizer.steps, done) as display:
        yield Recorder(job, run, evaluation, log, display)


class Recorder:
    """Fetches the metrics of steps, checks them, measures the held-out loss, and writes both down."""

    def __init__(self, job: Job, run: Run, evaluation: Evaluation | None, log: RunLog | None, display: Display | None):
        self.run, self.evaluation, self.log, self.display = run, evaluation, log, display
        self.seed = job.settings.seed
        self.clock = Clock(job)
        self.pending: tuple[int, dict[str, jax.Array]] | None = None

    def untrained(self) -> None:
        """The held-out loss before the first step."""
        loss = self.measure()
        if self.log is not None and loss is not None:
            self.log.write(0, {"tokens": 0, "eval_loss": loss})

    def step(self, number: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step that is on its way, and writes down those of the step before."""
        self.catch_up()
        self.pending = number, metrics

    def catch_up(self, measure: bool = False) -> None:
        """Writes down the last step that was taken, with the held-out loss if that is to be measured.

        Raises:
          InputError: its loss or its gradient is not finite.
        """
        if self.pending is None:
            return
        (number, metrics), self.pending = self.pending, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not values.pop("sound"):
            raise InputError(
                f"step {number}: loss {values['loss']}, gradient norm {values['grad_norm']} on batch {number} of "
                f"--seed {self.seed}; neither weights nor checkpoints were touched: lower --learning-rate in a new "
                "run, or look at the data"
            )
        row = {**values, **self.clock.lap(), "tokens": self.clock.tokens_seen(number)}
        row["eval_loss"] = self.measure() if measure else None
        if self.log is not None and self.display is not None:
            self.log.write(number, row)
            self.display.update(number, row)

    def measure(self) -> float | None:
        """The held-out loss as the model is now."""
        if self.evaluation is None:
            return None
        loss = self.evaluation(self.run.state.params, self.run.frozen, int(self.run.state.step))
        self.run.first_eval = loss if self.run.first_eval is None else self.run.first_eval
        self.run.last_eval = loss
        self.clock.pause()
        return loss


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
