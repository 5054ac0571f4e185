"""The numbers of a training run on their way from the devices to metrics.jsonl."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from lesa_jax.base.errors import DivergedError
from lesa_jax.tracking.display import Display
from lesa_jax.tracking.log import RunLog
from lesa_jax.training.cost import device_peak, token_cost
from lesa_jax.training.held_out import Evaluation
from lesa_jax.training.job import TrainJob
from lesa_jax.training.start import Run


@contextmanager
def recorder(job: TrainJob, run: Run, evaluation: Evaluation | None) -> Iterator["Recorder"]:
    """A recorder for this process: the first one writes, all of them check and measure."""
    if jax.process_index() > 0:
        yield Recorder(job, run, evaluation, None, None)
        return
    done = int(run.state.step)
    with RunLog(job.settings.output, done) as log, Display(job.optimizer.steps, done) as display:
        yield Recorder(job, run, evaluation, log, display)


class Recorder:
    """Fetches the metrics of steps, checks them, measures the held-out loss, and writes both down."""

    def __init__(
        self, job: TrainJob, run: Run, evaluation: Evaluation | None, log: RunLog | None, display: Display | None
    ):
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
          DivergedError: its loss or its gradient is not finite.
        """
        if self.pending is None:
            return
        (number, metrics), self.pending = self.pending, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not values.pop("sound"):
            raise DivergedError(
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

    def __init__(self, job: TrainJob):
        self.step_tokens = job.step_tokens
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
