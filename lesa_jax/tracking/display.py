"""A training run's live line on stderr."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lesa_jax.base.console import LiveProgress
from lesa_jax.base.units import duration, short_rate

PLAIN_INTERVAL = 10.0  # seconds between lines where no line can be redrawn
BAR_WIDTH = 100  # columns of a terminal that has room for a bar beside the numbers
TIMES_WIDTH = 16  # columns of the time spent and the time left


class Display:
    """How the run is going, on stderr. A context manager.

    On a terminal and in a notebook it is one line that is redrawn; elsewhere there is a line every ten seconds.
    """

    def __init__(
        self,
        steps: int,
        first_step: int = 0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """The display of a run of `steps` steps, `first_step` of them done before.

        Args:
          steps: of the whole run.
          first_step: of the checkpoint that it goes on from.
          console: where to; by default stderr.
          clock: in seconds.
        """
        self.steps = steps
        self.console = console or Console(stderr=True, markup=False, emoji=False)
        self.clock = clock
        self.started = clock()
        self.printed: float | None = None
        self.measured: tuple[int, float] | None = None
        self.losses: dict[str, float | int | None] = {}  # held-out, as they were measured last
        bar = [BarColumn(bar_width=None)] if self.console.width >= BAR_WIDTH else []
        self.progress = LiveProgress(
            *bar,
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,
            speed_estimate_period=1800.0,  # steps may take minutes; rich would forget the last one in between
        )
        self.task = self.progress.add_task(f"step {first_step}/{steps}", total=steps, completed=first_step)

    def update(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """Shows a step that is done, with the values that `RunLog.write` takes; the last evaluation stays."""
        self.losses |= {key: values[key] for key in ("eval_loss", "retain_loss") if values.get(key) is not None}
        text = status(step, self.steps, {**values, **self.losses})
        if not self.progress.disable:
            room = max(1, self.console.width - TIMES_WIDTH)  # where it is narrow, rich would rather shorten the times
            self.progress.update(self.task, completed=step, description=text[:room])
            return
        now = self.clock()
        if self.measured is None:
            self.measured = step, now  # the first step holds the compilation, which says nothing about the others
        if self.printed is None or now - self.printed >= PLAIN_INTERVAL or step >= self.steps:
            self.printed = now
            times = f"{duration(now - self.started)} elapsed, {self._left(step, now)} left"
            self.console.print(f"{text}  {times}", soft_wrap=True, highlight=False, markup=False)

    def _left(self, step: int, now: float) -> str:
        """Time that the steps to come will take at the pace so far."""
        if step >= self.steps:
            return duration(0.0)
        assert self.measured is not None
        first, since = self.measured
        return duration((self.steps - step) * (now - since) / (step - first)) if step > first else "-:--:--"

    def __enter__(self) -> "Display":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


def status(step: int, steps: int, values: Mapping[str, float | int | None]) -> str:
    """`step 120/2000  loss 3.214  eval 3.300  12.3k tok/s  MFU 41.2%`, without what is not known."""
    formats: dict[str, Callable[[float], str]] = {
        "loss": lambda value: f"loss {value:.3f}",
        "eval_loss": lambda value: f"eval {value:.3f}",
        "retain_loss": lambda value: f"retained {value:.3f}",
        "tokens_per_second": lambda value: f"{short_rate(value)} tok/s",
        "mfu": lambda value: f"MFU {value:.1%}",
    }
    known = [form(value) for key, form in formats.items() if (value := values.get(key)) is not None]
    return "  ".join([f"step {step}/{steps}", *known])
