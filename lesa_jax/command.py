"""What all commands share: options from a dataclass, one line for a bad input, a clean end on Ctrl-C."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from lesa_jax.base.errors import InputError

Settings = TypeVar("Settings")
Result = TypeVar("Result")

INTERRUPTED = 130  # the exit code of what Ctrl-C ends


def run_command(
    function: Callable[[Settings], Result],
    settings: type[Settings],
    show: Callable[[Result], int | None],
    argv: Sequence[str] | None = None,
    interrupted: str = "nothing was written under the output's name",
) -> int:
    """Parses the options, runs the command, shows its result.

    Args:
      function: the command as a Python function of its settings.
      settings: the frozen dataclass of options, in groups or not; its docstring is the help text.
      show: prints the result on stdout; may return another exit code than 0.
      argv: the options; by default the process's own.
      interrupted: what Ctrl-C leaves.

    Returns:
      The exit code: that of `show`, or 2 after an InputError (one line on stderr). Ctrl-C and SIGTERM end the process
      with 130.
    """
    # SIGTERM unwinds the stack as Ctrl-C does, so that half-written folders are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parsed = tyro.cli(settings, args=argv, config=(tyro.conf.OmitArgPrefixes,))
    try:
        return show(function(parsed)) or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted: {interrupted}", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)  # an orderly exit would wait for the computation that XLA is in the middle of
