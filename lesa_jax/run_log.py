"""What a training run leaves for its reader: metrics.jsonl, TensorBoard events, loss.png, and a live line on stderr.

metrics.jsonl is the record: one JSON line a step, on its way to the disk before the next step begins. The other two are
made from the same numbers and can be thrown away.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lesa_jax.errors import InputError
from lesa_jax.writer import replace_file

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
CURVE = "loss.png"

# The values of a line after its step: nats per token, the gradient's norm before clipping, tokens per second of wall
# time, and the share of the devices' peak that the model's operations use.
KEYS = ("tokens", "loss", "eval_loss", "grad_norm", "learning_rate", "tokens_per_second", "mfu")

TENSORBOARD_DELAY = 10  # seconds until an event is on the disk, where TensorBoard looks for it
PLAIN_INTERVAL = 10.0  # seconds between lines where there is no terminal
BAR_WIDTH = 100  # columns of a terminal that has room for a bar beside the numbers
TIMES_WIDTH = 16  # columns of the time spent and the time left

CURVE_SIZE = (1200, 700)  # pixels
CURVE_DPI = 100
CURVE_POINTS = 4000  # more than there are pixel columns; Agg gives up on noisy lines of a million points
COLOURS = {"loss": "#a9c9e6", "smooth": "#1a5a9c", "eval": "#d9571c", "rate": "#555555", "grid": "#e4e4e4"}


class RunLog:
    """The record of one run, open for more steps. Of several processes only one may hold it.

    Use it as a context manager: it is closed, and the curve drawn, after an error too.
    """

    def __init__(self, folder: Path, last_step: int):
        """Opens the record of a run that goes on after `last_step`; what stands there of later steps is removed.

        Args:
          folder: of the run; made where it is missing.
          last_step: step of the checkpoint that the run goes on from; 0 for a run that starts, whose record is emptied.

        Raises:
          InputError: metrics.jsonl holds a line that is not a step's.
        """
        from tensorboardX import SummaryWriter

        self.metrics, self.curve = folder / METRICS, folder / CURVE
        folder.mkdir(parents=True, exist_ok=True)
        first = last_step + 1 if last_step > 0 else 0  # a run that starts measures step 0, the untrained model, again
        self.last_step = keep_steps(self.metrics, first)
        self.file = self.metrics.open("ab", buffering=0)
        # Event files are named by the second and would overwrite each other when a run is resumed within one.
        suffix = f".{time.time_ns()}"
        self.tensorboard: Any = SummaryWriter(
            str(folder / TENSORBOARD), purge_step=first, flush_secs=TENSORBOARD_DELAY, filename_suffix=suffix
        )

    def write(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """Writes one step's line; a killed process loses none that was written.

        Args:
          step: larger than that of the line before.
          values: by a name of `KEYS`. What is missing or not finite is null in the file and left out of TensorBoard.

        Raises:
          ValueError: a step out of order, or a name that is not of `KEYS`.
        """
        if step <= self.last_step:
            raise ValueError(f"step {step} after step {self.last_step}")
        if unknown := values.keys() - set(KEYS):
            raise ValueError(f"not metrics: {sorted(unknown)}")
        row = {key: finite(values.get(key)) for key in KEYS}
        line = memoryview(json.dumps({"step": step, **row}, allow_nan=False).encode() + b"\n")
        while line:  # an unbuffered write may be short
            line = line[self.file.write(line) :]
        self.last_step = step
        for key, value in row.items():
            if value is not None:
                self.tensorboard.add_scalar(key, value, step)

    def close(self) -> None:
        """Waits until everything is on the disk and draws the curve; a second call does nothing."""
        if self.file.closed:
            return
        self.tensorboard.close()
        os.fsync(self.file.fileno())
        self.file.close()
        draw_curve(read_metrics(self.metrics), self.curve)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def finite(value: float | int | None) -> float | int | None:
    """The value; None for NaN and infinities, which JSON does not have."""
    return value if value is not None and math.isfinite(value) else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line that was cut off while it was written is ignored.

    Raises InputError, with the line's number, for any other line that is not a step's, and for a file that cannot be
    read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    lines = data.split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        row = parse_line(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):  # what follows the last newline is empty, or torn
            raise InputError(f"{path}, line {number}: not a JSON object of a step and its numbers; remove the line")
    return rows


def parse_line(line: bytes) -> dict[str, Any] | None:
    """A step's line of metrics.jsonl; None for anything else."""
    try:
        row = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    values = (row.get(key) for key in KEYS)
    sound = all(value is None or (type(value) in (int, float) and abs(value) < math.inf) for value in values)
    return row if sound else None


def keep_steps(path: Path, end: int) -> int:
    """Removes the steps from `end` on, and a torn last line, from a metrics.jsonl if there is one.

    Returns:
      The last step that stays; -1 if none does.
    """
    if not path.exists():
        return -1
    rows = [row for row in read_metrics(path) if row["step"] < end]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    if data != path.read_bytes():
        replace_file(path, lambda beside: beside.write_bytes(data))
    return max((row["step"] for row in rows), default=-1)


def draw_curve(rows: Sequence[Mapping[str, Any]], png: Path) -> None:
    """Draws training and evaluation loss, and the learning rate below, over the tokens seen.

    Args:
      rows: as of `read_metrics`; none, or nulls only, give empty axes.
      png: the file, 1200 x 700 pixels; written beside and renamed.
    """
    # Slow to import. pyplot would keep figures and choose a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis = "tokens" if any(row.get("tokens") is not None for row in rows) else "step"
    train_x, train_y = series(rows, axis, "loss")
    eval_x, eval_y = series(rows, axis, "eval_loss")
    rate_x, rate_y = series(rows, axis, "learning_rate")
    smooth_y = smooth(train_y)

    width, height = CURVE_SIZE
    figure = Figure(figsize=(width / CURVE_DPI, height / CURVE_DPI), dpi=CURVE_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
    # A single point has no line to be seen.
    alone = "o" if len(train_x) == 1 else None
    shown = thin(len(train_x))
    if len(train_x):
        x, y, mean = train_x[shown], train_y[shown], smooth_y[shown]
        top.plot(x, y, color=COLOURS["loss"], linewidth=0.9, label="training, each step")
        top.plot(x, mean, color=COLOURS["smooth"], linewidth=2.2, marker=alone, label="training, mean")
    if len(eval_x):
        marks: dict[str, Any] = {"marker": "o", "markersize": 8, "markeredgecolor": "white", "linestyle": ":"}
        top.plot(eval_x, eval_y, color=COLOURS["eval"], linewidth=1.4, label="evaluation", zorder=3, **marks)
    if len(train_x) or len(eval_x):
        top.set_ylim(*loss_limits(train_y, eval_y))
        top.legend(loc="upper right", frameon=False, fontsize=14)
    shown = thin(len(rate_x))
    bottom.plot(
        rate_x[shown], rate_y[shown], color=COLOURS["rate"], linewidth=1.6, marker="o" if len(rate_x) == 1 else None
    )
    if len(rate_y) and rate_y.max() > 0:
        bottom.set_ylim(0.0, 1.15 * rate_y.max())
        bottom.set_yticks([0.0, rate_y.max()])
    bottom.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:.2g}"))
    last = max([1.0, *(x[-1] for x in (train_x, eval_x, rate_x) if len(x))])
    bottom.set_xlim(-0.01 * last, 1.01 * last)  # points at the ends are not cut in half
    bottom.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    bottom.xaxis.set_major_formatter(FuncFormatter(lambda value, position: short(value)))
    bottom.set_xlabel("tokens seen" if axis == "tokens" else "step", fontsize=14)
    top.set_ylabel("loss (nats per token)", fontsize=14)
    bottom.set_ylabel("learning\nrate", fontsize=14)
    for panel in (top, bottom):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color=COLOURS["grid"], linewidth=0.8)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=13)
    figure.align_ylabels()
    # Without the version of matplotlib the same run gives the same bytes for longer.
    replace_file(png, lambda beside: canvas.print_figure(beside, format="png", metadata={"Software": None}))


def series(
    rows: Sequence[Mapping[str, Any]], x: str, y: str
) -> tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]:
    """Two columns as numbers, of the rows that have both."""
    points = [(row[x], row[y]) for row in rows if row.get(x) is not None and row.get(y) is not None]
    columns = np.array(points, np.float64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def smooth(y: Float[np.ndarray, " _"]) -> Float[np.ndarray, " _"]:
    """Means over about 2 % of the run around each point, over fewer at its start, where the loss falls fast."""
    n = len(y)
    position = np.arange(n)
    reach = np.minimum(math.ceil(n / 100), position // 4)
    start, end = position - reach, np.minimum(position + reach + 1, n)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    return (sums[end] - sums[start]) / (end - start)


def thin(n: int) -> slice:
    """Every so manieth of n points, at most `CURVE_POINTS`."""
    return slice(None, None, max(1, math.ceil(n / CURVE_POINTS)))


def loss_limits(train: Float[np.ndarray, " _"], evaluation: Float[np.ndarray, " _"]) -> tuple[float, float]:
    """Ends of the loss axis, for what is there of training and evaluation losses.

    One step in a hundred may lie above the upper end, so that the first ones do not flatten all others. The first
    evaluation, of a model that is not trained yet, is shown unless that would more than double the axis.
    """
    ends = [*np.quantile(train, [0.002, 0.99]), *evaluation[1:]] if len(train) else [*evaluation]
    low, high = float(min(ends)), float(max(ends))
    if len(evaluation) and low <= evaluation[0] + (high - low) and evaluation[0] <= high + (high - low):
        low, high = min(low, float(evaluation[0])), max(high, float(evaluation[0]))
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def short(count: float | int) -> str:
    """1500000 as 1.5M."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(count) >= unit:
            return f"{count / unit:.4g}{name}"
    return f"{count:.4g}"


class Display:
    """How the run is going, on stderr: a bar on a terminal, elsewhere a line every ten seconds. A context manager."""

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
        self.console = console or Console(stderr=True)
        self.clock = clock
        self.started = clock()
        self.printed: float | None = None
        self.measured: tuple[int, float] | None = None
        self.eval_loss: float | int | None = None
        bar = [BarColumn(bar_width=None)] if self.console.width >= BAR_WIDTH else []
        self.progress = Progress(
            *bar,
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            expand=True,
            speed_estimate_period=1800.0,  # steps may take minutes; rich would forget the last one in between
        )
        self.task = self.progress.add_task(f"step {first_step}/{steps}", total=steps, completed=first_step)

    def update(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """Shows a step that is done, with the values that `RunLog.write` takes; the last evaluation stays."""
        if values.get("eval_loss") is not None:
            self.eval_loss = values["eval_loss"]
        text = status(step, self.steps, {**values, "eval_loss": self.eval_loss})
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
        "tokens_per_second": lambda value: f"{short_rate(value)} tok/s",
        "mfu": lambda value: f"MFU {value:.1%}",
    }
    known = [form(value) for key, form in formats.items() if (value := values.get(key)) is not None]
    return "  ".join([f"step {step}/{steps}", *known])


def short_rate(rate: float | int) -> str:
    """12345.6 as 12.3k."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if rate >= unit:
            return f"{rate / unit:.{3 - len(str(int(rate / unit)))}f}{name}"
    return f"{rate:.0f}"


def duration(seconds: float) -> str:
    """90.4 as 0:01:30."""
    return str(timedelta(seconds=int(seconds)))
