"""The numbers of a training run on their way from the devices to metrics.jsonl."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax

from lesa_jax.base.errors import DivergedError
from lesa_jax.base.settings import as_json
from lesa_jax.tracking.display import Display
from lesa_jax.tracking.log import RunLog
from lesa_jax.tracking.trackers import parse_trackers
from lesa_jax.training.cost import device_peak, token_cost
from lesa_jax.training.folder import settings_of
from lesa_jax.training.held_out import Evaluation, StoppedError, base_program
from lesa_jax.training.job import TrainJob
from lesa_jax.training.start import Run

Row = dict[str, float | int | None]


@contextmanager
def recorder(job: TrainJob, run: Run, evaluation: Evaluation | None, stop: Callable[[], bool]) -> Iterator["Recorder"]:
    """A recorder for this process: the first one writes, all of them check and measure."""
    if jax.process_index() > 0:
        yield Recorder(job, run, evaluation, stop, None, None)
        return
    done = int(run.state.step)
    trackers, settings = parse_trackers(job.settings.keeping.tracker), as_json(job.settings) | settings_of(job)
    with RunLog(job.settings.output, done, trackers, settings) as log, Display(job.optimizer.steps, done) as display:
        yield Recorder(job, run, evaluation, stop, log, display)


class Recorder:
    """Fetches the metrics of steps, checks them, measures the held-out losses, and writes both down.

    A measurement is left when it is time to stop; its step is then the run's `unmeasured`, and is written down when
    the run goes on.
    """

    def __init__(
        self,
        job: TrainJob,
        run: Run,
        evaluation: Evaluation | None,
        stop: Callable[[], bool],
        log: RunLog | None,
        display: Display | None,
    ):
        self.run, self.evaluation, self.stop, self.log, self.display = run, evaluation, stop, log, display
        self.job = job
        self.clock = Clock(job)
        self.pending: tuple[int, dict[str, jax.Array]] | None = None

    def begin(self) -> None:
        """Measures what is to be measured before the next step: the untrained model, or where the run was stopped."""
        if self.run.unmeasured is not None:
            self.write(*self.run.unmeasured, measure=True)
        elif int(self.run.state.step) == 0 and self.evaluation is not None:
            self.write(0, {"tokens": 0}, measure=True)
            self.measure_base()

    def step(self, number: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step that is on its way, and writes down those of the step before."""
        self.catch_up()
        self.pending = number, metrics

    def catch_up(self, measure: bool = False) -> None:
        """Writes down the last step that was taken, with the held-out loss if that is to be measured.

        Raises:
          DivergedError: its loss, its gradient or what it made of the weights is not finite.
        """
        if self.pending is None:
            return
        (number, metrics), self.pending = self.pending, None
        values: Row = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not values.pop("sound"):
            raise self.explain(number, values)
        self.write(number, {**values, **self.clock.lap(), "tokens": self.clock.tokens_seen(number)}, measure)

    def explain(self, number: int, values: Row) -> DivergedError:
        seen = values["loss"], values["grad_norm"]
        update = all(value is not None and math.isfinite(value) for value in seen)
        what = "the update gave weights that are not finite" if update else "loss {}, gradient norm {}".format(*seen)
        seed = self.job.settings.seed
        return DivergedError(
            f"step {number}: {what} on batch {number} of --seed {seed}; neither the model nor checkpoints were "
            "touched: lower --learning-rate in a new run, or look at the data"
        )

    def write(self, number: int, row: Row, measure: bool) -> None:
        """Writes down a step, and measures the held-out loss before if that is wanted."""
        if measure:
            try:
                row = row | self.measure()
            except StoppedError:
                self.run.unmeasured = number, row
                return
            self.run.unmeasured = None
        if self.log is not None and self.display is not None:
            self.log.write(number, row)
            if number > 0:
                self.display.update(number, row)

    def measure_base(self) -> None:
        """The held-out losses of the model without its new layers, for the report; left where it is time to stop."""
        program = base_program(self.job)
        if program is None or self.evaluation is None:
            return
        try:
            measured = self.evaluation(self.run.state.learned, self.run.frozen, 0, self.stop, program)
        except StoppedError:
            return
        self.run.base_losses = {name: one.nll for name, one in measured.items()}
        self.clock.pause()

    def measure(self) -> dict[str, float]:
        """The held-out losses as the model is now."""
        if self.evaluation is None:
            return {}
        step = int(self.run.state.step)
        measured = self.evaluation(self.run.state.learned, self.run.frozen, step, self.stop, self.job.program)
        if self.log is not None:
            self.log.write_windows(step, {name: one.windows for name, one in measured.items()})
        losses = {name: one.nll for name, one in measured.items()}
        self.run.first_losses = self.run.first_losses or losses
        self.run.last_losses = losses
        self.clock.pause()
        return losses


class Clock:
    """Tokens a second and model FLOPs utilisation, from one fetched step to the next."""

    def __init__(self, job: TrainJob):
        self.step_tokens = job.step_tokens
        self.cost = token_cost(job.config, job.leaves, job.sequence_length, job.target_length).total
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
