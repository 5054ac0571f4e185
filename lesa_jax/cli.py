"""What all commands share: options from a dataclass, one line for a bad input, a clean end on Ctrl-C, progress bars."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TypeVar

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lesa_jax.errors import InputError

Settings = TypeVar("Settings")
Result = TypeVar("Result")


def run_command(
    function: Callable[[Settings], Result],
    settings: type[Settings],
    show: Callable[[Result], None],
    argv: Sequence[str] | None = None,
    interrupted: str = "nothing was written under the output's name",
) -> int:
    """Parses the options, runs the command, shows its result.

    Args:
      function: the command as a Python function of its settings.
      settings: the frozen dataclass of options; its docstring is the help text.
      show: prints the result on stdout.
      argv: the options; by default the process's own.
      interrupted: what Ctrl-C leaves.

    Returns:
      The exit code: 0, or 2 after an InputError (one line on stderr). Ctrl-C and SIGTERM end the process with 130.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    parsed = tyro.cli(settings, args=argv)
    try:
        show(function(parsed))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted: {interrupted}", file=sys.stderr, flush=True)
        os._exit(130)  # an orderly exit would wait for the computation that XLA is in the middle of
    return 0


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds the stack as Ctrl-C does, so that half-written folders are removed."""
    raise KeyboardInterrupt


def read_text(option: str, path: Path) -> str:
    """The text of a UTF-8 file that the user named with `option`.

    Raises InputError for a file that is missing, not UTF-8, or blank.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{option} {path}: cannot be read as UTF-8 text ({error})") from None
    if not text.strip():
        raise InputError(f"{option} {path}: holds no text")
    return text


def progress_bars() -> Progress:
    """Progress bars on stderr with the time spent and the time left; silent when stderr is not a terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
