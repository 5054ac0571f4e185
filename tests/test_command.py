"""The door of every command: whatever happens behind it, the user reads one line and the shell an exit code."""

import errno
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from lesa_jax.base.errors import InputError, Terminated
from lesa_jax.command import run_command


@dataclass(frozen=True)
class Settings:
    debug: bool = False


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "out/model.safetensors")


ERRORS = {
    "bad input": (InputError("--model x: no such folder"), 2, "error: --model x: no such folder"),
    "several lines": (InputError("a\n  b"), 2, "error: a b"),
    "full disk": (os_error(errno.ENOSPC), 1, "error: out/model.safetensors: the disk is full; free some space"),
    "quota": (os_error(errno.EDQUOT), 1, "the disk is full"),
    "no permission": (os_error(errno.EACCES), 1, "error: out/model.safetensors: Permission denied; check the path"),
    "long name": (os_error(errno.ENAMETOOLONG), 1, "File name too long"),
    "open files": (os_error(errno.EMFILE), 1, "too many open files; raise the limit"),
    "bare": (OSError("odd"), 1, "unexpected OSError: odd; --debug shows where"),
    "memory": (MemoryError(), 1, "error: out of memory (MemoryError); take a smaller"),
    "device memory": (RuntimeError("RESOURCE_EXHAUSTED: 99 GB"), 1, "out of memory (RESOURCE_EXHAUSTED: 99 GB)"),
    "overflow": (OverflowError("int too large"), 1, "unexpected OverflowError: int too large; --debug"),
    "shape of a file": (KeyError("plan"), 1, "unexpected KeyError: 'plan'; --debug"),
    "depth of a file": (RecursionError("too deep"), 1, "unexpected RecursionError"),
}


@pytest.mark.parametrize("case", ERRORS)
@pytest.mark.parametrize("debug", [False, True])
def test_every_error_is_one_line_and_a_traceback_only_on_request(capsys, case, debug):
    error, code, line = ERRORS[case]

    def fails(settings):
        raise error

    assert run_command(fails, Settings, lambda result: 0, ["--debug"] if debug else []) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    *trace, last = captured.err.splitlines()
    assert line in last
    assert bool(trace) == debug
    assert ("in fails" in captured.err) == debug


@pytest.mark.parametrize(
    ("signalled", "goes_on", "line"),
    [
        (KeyboardInterrupt(), False, "nothing is left"),
        (KeyboardInterrupt(), True, "nothing is left"),
        (KeyboardInterrupt("the folder is left"), False, "the folder is left"),
        (Terminated(), False, "nothing is left"),
        (Terminated(), True, "nothing is left; the same command goes on with what was finished"),
    ],
)
def test_what_a_signal_leaves_is_said(capsys, monkeypatch, signalled, goes_on, line):
    def stops(settings):
        raise signalled

    def exits(code):
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", exits)
    with pytest.raises(SystemExit) as exited:
        run_command(stops, Settings, lambda result: 0, [], interrupted="nothing is left", goes_on=goes_on)
    assert exited.value.code == 130
    assert capsys.readouterr().err == f"interrupted: {line}\n"


def test_an_error_while_showing_is_one_line_too(capsys):
    def show(result):
        raise os_error(errno.EIO)

    assert run_command(lambda settings: 0, Settings, show, []) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    command = f"{sys.executable} -m lesa_jax.expand --output {tmp_path}/out --dry-run | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""


def test_brackets_in_a_name_are_no_markup(tmp_path, capsys):
    from lesa_jax.growth.report import print_report
    from lesa_jax.growth.run import expand
    from lesa_jax.growth.settings import ExpandSettings

    report = expand(ExpandSettings(output=tmp_path / "[bold]x[/red] [link", method="solar", dry_run=True))
    print_report(report)
    assert "[bold]x[/red] [link" in capsys.readouterr().out
