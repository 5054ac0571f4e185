"""Whole processes, timed from outside."""

import os
import subprocess
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """A finished process: wall-clock seconds, peak resident bytes, what it printed."""

    seconds: float
    peak: int
    output: str


def run(command: list[str]) -> Run:
    """Runs a command and accounts for it alone (`os.wait4`)."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Run(time.perf_counter() - start, usage.ru_maxrss * 1024, output)
