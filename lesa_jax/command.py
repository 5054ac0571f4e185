"""What all commands share: options from a dataclass, one line for whatever goes wrong, a clean end on Ctrl-C."""

import contextlib
import errno
import inspect
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, TypeVar

import tyro

from lesa_jax.base.errors import FULL, InputError, Terminated
from lesa_jax.base.recipes import Recorded, settings_of, with_recipe
from lesa_jax.base.refusals import refusal
from lesa_jax.base.settings import flatten, option

Settings = TypeVar("Settings")
Result = TypeVar("Result")

BAD_INPUT = 2  # the exit code of what the user can mend in the command or its files
FAILED = 1  # that of what went wrong on the way
INTERRUPTED = 130  # that of what Ctrl-C ends
RECIPES = "--recipe FILE takes options from a YAML file, or from what an earlier run recorded; options beside it win."


def run_command(
    function: Callable[[Settings], Result],
    settings: type[Settings],
    show: Callable[[Result], int | None],
    argv: Sequence[str] | None = None,
    interrupted: str = "nothing was written under the output's name",
    recorded: Recorded = settings_of,
    goes_on: bool = False,
) -> int:
    """Parses the options, runs the command, shows its result.

    Args:
      function: the command as a Python function of its settings.
      settings: the frozen dataclass of options, in groups or not; its docstring is the help text.
      show: prints the result on stdout; may return another exit code than 0.
      argv: the options; by default the process's own.
      interrupted: what Ctrl-C leaves, where the KeyboardInterrupt does not say it.
      recorded: see `recipes.with_recipe`.
      goes_on: whether after SIGTERM the same command goes on.

    Returns:
      The exit code: that of `show`; 2 for a bad input and 1 for any other error, each with one line on stderr and with
      its traceback only where --debug asks for it. Ctrl-C and SIGTERM end the process with 130.
    """
    # SIGTERM unwinds the stack as Ctrl-C does, so that half-written folders are removed, or kept to go on with.
    signal.signal(signal.SIGTERM, terminate)
    parsed = None
    try:
        words = with_recipe(sys.argv[1:] if argv is None else argv, settings, recorded)
        parsed = parse(settings, words)
        return show(function(parsed)) or 0
    except KeyboardInterrupt as signalled:
        left = str(signalled) or interrupted
        if isinstance(signalled, Terminated) and goes_on:
            left += "; the same command goes on with what was finished"
        print(f"interrupted: {left}", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)  # an orderly exit would wait for the computation that XLA is in the middle of
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if getattr(parsed, "debug", False):  # an option of every command
            traceback.print_exc()
        print(f"error: {explain(error)}", file=sys.stderr)
        return BAD_INPUT if isinstance(error, InputError) else FAILED


def parse(settings: type[Settings], words: Sequence[str]) -> Settings:
    """The options as settings; --help ends the process.

    Raises:
      InputError: there is no such option, or no such value of it.
    """
    described = f"{inspect.cleandoc(settings.__doc__ or '')}\n\n{RECIPES}"
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(settings, args=words, description=described, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as end:
        if not end.code:
            raise
        raise InputError(refusal(box.getvalue(), words, map(option, flatten(settings())))) from None


def terminate(number: int, frame: FrameType | None) -> None:
    """The handler of SIGTERM."""
    raise Terminated


def explain(error: Exception) -> str:
    """One line for the user: what went wrong, with which file, and what to do."""
    text = " ".join(str(error).split())
    match error:
        case InputError():
            return text
        case OSError() if error.errno in FULL:
            return f"{file_of(error)}: the disk is full; free some space and run the same command again"
        case OSError() if error.errno == errno.EMFILE:
            return f"{file_of(error)}: too many open files; raise the limit with `ulimit -n 4096`"
        case OSError() if error.errno is not None:
            return f"{file_of(error)}: {error.strerror}; check the path, its permissions and the disk"
        case MemoryError():
            return f"out of memory ({text or 'MemoryError'}); take a smaller batch or model, or a larger machine"
        case _ if "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
            return f"out of memory ({text[:200]}); take a smaller batch or model, or a larger device"
        case _:
            return f"unexpected {type(error).__name__}: {text[:300]}; --debug shows where, please report it"


def file_of(error: OSError) -> Any:
    return error.filename2 or error.filename or "input or output"
