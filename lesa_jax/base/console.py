"""Progress on stderr, and reports on stdout. Nothing that comes from outside is taken for markup."""

from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def report_console() -> Console:
    """Stdout, for reports."""
    return Console(markup=False, emoji=False, highlight=False)


def progress_bars() -> Progress:
    """Progress bars on stderr with the time spent and the time left; silent where they cannot be redrawn."""
    return LiveProgress(
        TextColumn("{task.description:<16}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class LiveProgress(Progress):
    """Progress that is shown where it can be redrawn in place, and nowhere else."""

    def __init__(self, *columns: ProgressColumn, console: Console, **options: Any):
        super().__init__(*columns, console=console, disable=not redraws(console), **options)

    def stop(self) -> None:
        """Shows the bars as they are at last, which rich does not do in a notebook, and leaves them there."""
        self.refresh()
        super().stop()


def redraws(console: Console) -> bool:
    """Whether a line can be drawn again in its place: on a terminal, and in a notebook by rich's use of ipywidgets."""
    return find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
