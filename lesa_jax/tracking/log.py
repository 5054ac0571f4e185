"""What a training run leaves for its reader: metrics.jsonl, loss.png, and what trackers make of the same numbers.

metrics.jsonl is the record: one JSON line a step, on its way to the disk before the next step begins. All else can be
thrown away.
"""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json, replace_file, write_text
from lesa_jax.base.units import finite
from lesa_jax.tracking.curve import draw_curve
from lesa_jax.tracking.trackers import TENSORBOARD, open_trackers

METRICS = "metrics.jsonl"
WINDOWS = "windows.json"
CURVE = "loss.png"

# The values of a line after its step: nats per token, the gradient's norm before clipping, tokens per second of wall
# time, and the share of the devices' peak that the model's operations use.
KEYS = ("tokens", "loss", "eval_loss", "retain_loss", "grad_norm", "learning_rate", "tokens_per_second", "mfu")
# And of models with experts only, means over their layers (`models.experts.RouterLosses`).
ROUTER_KEYS = ("balance_loss", "z_loss")

LAST_STEP = 2**63 - 1


class RunLog:
    """The record of one run, open for more steps. Of several processes only one may hold it.

    Use it as a context manager: it is closed, and the curve drawn, after an error too.
    """

    def __init__(
        self,
        folder: Path,
        last_step: int,
        trackers: tuple[str, ...] = (TENSORBOARD,),
        settings: Mapping[str, Any] | None = None,
    ):
        """Opens the record of a run that goes on after `last_step`; what stands there of later steps is removed.

        Args:
          folder: of the run; made where it is missing.
          last_step: step of the checkpoint that the run goes on from; 0 for a run that starts, whose record is emptied.
          trackers: of `trackers.TRACKERS`; metrics.jsonl is written in any case.
          settings: of the run, for trackers that show them; JSON values.

        Raises:
          InputError: metrics.jsonl holds a line that is not a step's; the folder cannot be written to; wandb does
            not take the run.
        """
        self.folder, self.metrics, self.curve = folder, folder / METRICS, folder / CURVE
        first = last_step + 1 if last_step > 0 else 0  # a run that starts measures step 0, the untrained model, again
        with self.writing():
            folder.mkdir(parents=True, exist_ok=True)
            self.last_step = keep_steps(self.metrics, first)
            self.trackers = open_trackers(trackers, folder, first, settings or {})
            self.file = self.metrics.open("ab", buffering=0)

    def write(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """Writes one step's line; a killed process loses none that was written.

        Args:
          step: larger than that of the line before.
          values: by a name of `KEYS`. What is missing or not finite is null in the file and left out of what trackers
            get; what is missing of `ROUTER_KEYS` is in neither.

        Raises:
          ValueError: a step out of order, or a name that is of neither.
          InputError: the disk is full.
        """
        if step <= self.last_step:
            raise ValueError(f"step {step} after step {self.last_step}")
        if unknown := values.keys() - {*KEYS, *ROUTER_KEYS}:
            raise ValueError(f"not metrics: {sorted(unknown)}")
        row = {key: finite(values.get(key)) for key in (*KEYS, *(k for k in ROUTER_KEYS if k in values))}
        line = memoryview(json.dumps({"step": step, **row}, allow_nan=False).encode() + b"\n")
        with self.writing():
            while line:  # an unbuffered write may be short
                line = line[self.file.write(line) :]
            self.last_step = step
            known = {key: value for key, value in row.items() if value is not None}
            for tracker in self.trackers:
                tracker.write(step, known)

    def write_windows(self, step: int, texts: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        """Keeps the losses of single windows of held-out texts; those of an earlier step go.

        Args:
          step: at which they were measured.
          texts: by the losses' names in `KEYS`; of each window how many tokens were predicted, and their mean loss.

        Raises:
          InputError: the disk is full.
        """
        windows = {name: [[tokens, finite(loss)] for tokens, loss in text] for name, text in texts.items()}
        with self.writing():
            write_text(self.folder / WINDOWS, json.dumps({"step": step, **windows}, allow_nan=False) + "\n")

    def close(self, failed: bool = False) -> None:
        """Waits until everything is on the disk and draws the curve; a second call does nothing.

        Args:
          failed: whether an error ends the run.
        """
        if self.file.closed:
            return
        with self.writing(), self.file:
            for tracker in self.trackers:
                tracker.close(failed)
            os.fsync(self.file.fileno())
            draw_curve(read_metrics(self.metrics), self.curve)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One line for a disk that is full, or a file that is in the way."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{error.filename or self.folder}: cannot be written ({error.strerror or error}); make room there, and "
                "run the same command again to go on from the last checkpoint"
            ) from error

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close(failed=error is not None)
        except InputError:
            if error is None:  # else it is the one to be told
                raise


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
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        row = parse_line(line)
        if row is not None and (not rows or rows[-1]["step"] < row["step"]):
            rows.append(row)
        elif number < len(lines):  # what follows the last newline is empty, or torn
            raise InputError(
                f"{path}, line {number}: not a JSON object of a later step and its numbers; remove the line"
            )
    return rows


def read_windows(path: Path, name: str) -> list[tuple[int, float]]:
    """The windows of one text from a windows.json: tokens, and mean loss, NaN where that is not finite.

    Raises:
      InputError: it cannot be read, or has none of that name.
    """
    try:
        windows = read_json(path, "its run writes it")[name]
        return [(int(tokens), math.nan if loss is None else float(loss)) for tokens, loss in windows]
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: no {name} of windows; remove the run's folder to train it again") from None


def parse_line(line: bytes) -> dict[str, Any] | None:
    """A step's line of metrics.jsonl; None for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested without an end
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int or not 0 <= row["step"] <= LAST_STEP:
        return None
    sound = all(
        value is None or (type(value) in (int, float) and abs(value) <= sys.float_info.max)
        for value in map(row.get, KEYS)
    )
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
