"""Whole processes, timed from outside."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXPAND = """
import json, sys
from lesa_jax.expand import expand
result = expand(**json.loads(sys.argv[1]))
print(json.dumps({"seconds": dict(result.seconds), "memory": result.estimated_memory, "scratch": result.scratch}))
"""


@dataclass(frozen=True)
class Run:
    """A finished process: wall-clock seconds, peak resident bytes, what it printed."""

    seconds: float
    peak: int
    output: str


def expansion(**options: Any) -> list[str]:
    """The command of an expansion with these options, whose last line tells what it took, as JSON: `seconds` by stage,
    and bytes of `memory` and `scratch` that were expected."""
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    return [sys.executable, "-c", EXPAND, json.dumps(plain)]


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


def watched(command: list[str]) -> Run:
    """The same, with the most memory that is no file's for the peak, looked at ten times a second."""
    peak, printed, start = 0, [], time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=lambda out=process.stdout: printed.append(out.read()))
        reader.start()
        while process.poll() is None:
            peak = max(peak, _anonymous(process.pid))
            time.sleep(0.1)
        reader.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Run(time.perf_counter() - start, peak, printed[0])


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
