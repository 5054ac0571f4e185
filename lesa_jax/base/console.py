"""Progress on stderr, and reports on stdout. Nothing that comes from outside is taken for markup."""

import time
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from lesa_jax.base.units import duration

QUIET = 60.0  # seconds without a line, where bars cannot be redrawn


def report_console() -> Console:
    """Stdout, for reports."""
    return Console(markup=False, emoji=False, highlight=False)


def print_change(sizes: Iterable[tuple[str, str, str]], facts: Iterable[tuple[str, str]], console: Console) -> None:
    """Prints a table of what had another size before, and a line for each fact."""
    table = Table()
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for row in sizes:
        table.add_row(*row)
    console.print(table)
    for name, fact in facts:
        console.print(f"{name:<9} {fact}", highlight=False, soft_wrap=True)


def progress_bars() -> Progress:
    """Progress bars on stderr with the time spent and the time left; where they cannot be redrawn, a line a minute."""
    return SpokenProgress(
        TextColumn("{task.description:<16}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=1800.0,  # a large matrix may take minutes; rich would forget the last one in between
    )


class LiveProgress(Progress):
    """Progress that is shown where it can be redrawn in place, and nowhere else."""

    def __init__(self, *columns: ProgressColumn, console: Console, **options: Any):
        super().__init__(*columns, console=console, disable=not redraws(console), **options)

    def stop(self) -> None:
        """Shows the bars as they are at last, which rich does not do in a notebook, and leaves them there."""
        self.refresh()
        super().stop()


class SpokenProgress(LiveProgress):
    """Where it is not shown, a line says from time to time how far the work is: of the tasks that are under way the one
    that was added last, whose results the others wait for."""

    def __init__(self, *columns: ProgressColumn, console: Console, **options: Any):
        super().__init__(*columns, console=console, **options)
        self._last = time.monotonic()

    def advance(self, task_id: TaskID, advance: int | float = 1) -> None:
        super().advance(task_id, advance)
        now = time.monotonic()
        if self.disable and now - self._last >= QUIET:
            self._last = now
            under_way = [task for task in self.tasks if not task.finished]
            told = under_way[-1] if under_way else self._tasks[task_id]
            self.console.print(spoken(told), markup=False, highlight=False, soft_wrap=True)


def spoken(task: Task) -> str:
    """`new matrices  43 %  mlp.up_proj  0:12:31 elapsed, 0:16:02 left`."""
    share = "" if task.total is None else f"{task.percentage:.0f} %"
    left = "" if task.time_remaining is None else f", {duration(float(task.time_remaining))} left"
    times = f"{duration(task.elapsed or 0.0)} elapsed{left}"
    return "  ".join(part for part in (task.description, share, task.fields["note"], times) if part)


def redraws(console: Console) -> bool:
    """Whether a line can be drawn again in its place: on a terminal, and in a notebook by rich's use of ipywidgets."""
    return find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
