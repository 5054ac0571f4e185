"""One command for a machine with a GPU or a TPU: does it compute what a CPU does, and how fast is it?

Command:   python experiments/bench/device.py
Run time:  under 8 minutes, compilation included, which is most of it; --tiny runs all of it on a CPU in about 2.
Expected:  PASS in every row of the first table, or exit code 1.

lesa_jax must be installed, or its .egg-info lie where Python finds it; no network and no torch are needed. Every part
is a process of its own with a time limit, so that one that fails is a row of the report, which is written anew after
each. The CPU's figures lie in device_parity.json; --store makes them again.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tyro
from bench_report import markdown_table
from device_report import parity_table, passes, rates_table, stages_table, training_table

HERE = Path(__file__).parent
STORED = HERE / "device_parity.json"
PACKAGES = ("lesa_jax", "jax", "jaxlib", "flax", "optax", "numpy", "transformers")
SHORTEST = 15  # seconds in which no part gets anywhere


@dataclass(frozen=True)
class DeviceSettings:
    """What to run."""

    output: Path | None = None
    """Markdown file, and the same as .json beside it; by default experiments/results/device_KIND.md."""
    limit: int = 470
    """Seconds for everything; what does not fit is left out, and the report says so."""
    tiny: bool = False
    """Tiny shapes, to try the script out."""
    store: bool = False
    """Write device_parity.json anew, on the CPU, and nothing else."""


@dataclass(frozen=True)
class Part:
    """A script beside this one with its arguments, the section that its rows belong to, and its seconds at most."""

    section: str
    script: str
    arguments: tuple[str, ...]
    limit: int

    @property
    def name(self) -> str:
        return " ".join((self.section, *self.arguments))


# What is worth most comes first. On an H200 all of the training took 90 s; LESA's programs are compiled for minutes.
PARTS = (
    Part("training", "device_train.py", ("1b_new",), 60),
    Part("training", "device_train.py", ("8b_new",), 120),
    Part("training", "device_train.py", ("1b_all",), 60),
    Part("parity", "device_parity.py", (), 240),
    Part("stages", "device_stages.py", ("8b",), 200),
)
TINY = (
    Part("stages", "device_stages.py", ("tiny",), 600),
    Part("parity", "device_parity.py", (), 600),
    Part("training", "device_train.py", ("tiny_new",), 600),
    Part("training", "device_train.py", ("tiny_all",), 600),
)


def run_part(part: Part, limit: float, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows that a part printed; and one that tells how it ended, if not well."""
    command = [sys.executable, str(HERE / part.script), *part.arguments]
    last, started = "", time.monotonic()
    say(f"{part.name}: at most {limit:.0f} s")
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True, env=environment) as process,
    ):
        assert process.stderr is not None
        timer = threading.Timer(limit, process.kill)
        timer.start()
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            last = line.strip() or last
        code = process.wait()
        timer.cancel()
        output.seek(0)
        rows = [json.loads(line) for line in output if line.startswith("{") and line.endswith("\n")]
    taken = time.monotonic() - started
    say(f"{part.name}: {taken:.0f} s")
    if code:
        reason = f"not finished in {taken:.0f} s" if taken >= limit else f"exit code {code}: {last}"
        rows.append({"case": part.name, "failed": reason})
    return rows


def say(what: str) -> None:
    print(f"device: {what}", file=sys.stderr, flush=True)


def describe_machine() -> list[str]:
    """Versions, which training asks for, too: the program ends where a package has none; and the driver's words."""
    try:
        versions = [f"{name} {version(name)}" for name in PACKAGES]
    except PackageNotFoundError as error:
        message = f"{error.name} is not installed: pip install it, or take lesa_jax.egg-info along beside lesa_jax"
        raise SystemExit(message) from None
    lines = [", ".join((f"Python {platform.python_version()}", *versions))]
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
        lines.append("nvidia-smi: " + subprocess.run(command, capture_output=True, text=True).stdout.strip())
    return lines


def figures(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The parity part's figures by their names."""
    return {row["figure"]: row["values"] for row in rows if "figure" in row}


def write_report(path: Path, found: Mapping[str, list[dict[str, Any]]], machine: list[str]) -> None:
    """Markdown with what was measured so far, and all of it as JSON."""
    stored = json.loads(STORED.read_text())["figures"]
    device = next((row for row in found["stages"] if "kind" in row), None)
    stages = [row for row in found["stages"] if "kind" not in row]
    sections = {"Against a CPU": parity_table(figures(found["parity"]), stored)}
    if device is not None:
        memory = "" if device["memory"] is None else f", {device['memory'] / 1e9:.1f} GB for JAX"
        machine = [f"{device['devices']} x {device['kind']}{memory}", *machine]
        sections |= {
            "Rates": rates_table(device),
            "Training": training_table(found["training"], device),
            "LESA": stages_table(stages, device),
        }
    lines = ["`python experiments/bench/device.py`", "", *(f"- {line}" for line in machine), ""]
    for name, (header, rows) in sections.items():
        lines += [f"## {name}", "", *markdown_table(header, rows), ""]
    failed = [row for rows in found.values() for row in rows if "failed" in row]
    lines += [f"{row['case']} failed: {row['failed']}\n" for row in failed]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")
    content = json.dumps({"machine": machine, "stored": stored, **found}, indent=1)
    path.with_suffix(".json").write_text(content + "\n", encoding="utf-8")


def default_output(rows: list[dict[str, Any]], tiny: bool) -> Path:
    kind = next((row["kind"] for row in rows if "kind" in row), "unknown")
    name = re.sub(r"\W+", "_", kind).lower() + "_tiny" * tiny
    return HERE.parent / "results" / f"device_{name}.md"


def store() -> int:
    """Writes the CPU's figures down."""
    rows = run_part(Part("parity", "device_parity.py", (), 600), 600, {**os.environ, "JAX_PLATFORMS": "cpu"})
    if any("failed" in row for row in rows):
        return 1
    text = json.dumps({"machine": describe_machine()[0], "figures": figures(rows)})
    STORED.write_text(text + "\n", encoding="utf-8")
    return 0


def main(settings: DeviceSettings) -> int:
    """Runs all parts; 1 if a figure is not the CPU's."""
    if settings.store:
        return store()
    started = time.monotonic()
    machine = describe_machine()
    say("; ".join(machine))
    # The model is to have nearly all of the memory; what remains is for the libraries that JAX calls.
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".95", **os.environ}
    found: dict[str, list[dict[str, Any]]] = {"parity": [], "stages": [], "training": []}
    path = settings.output
    for part in TINY if settings.tiny else PARTS:
        left = settings.limit - (time.monotonic() - started)
        if left < SHORTEST:
            found[part.section].append({"case": part.name, "failed": "left out, as --limit was reached"})
        else:
            found[part.section] += run_part(part, min(part.limit, left), environment)
        path = path or default_output(found["stages"], settings.tiny)
        write_report(path, found, machine)
    assert path is not None
    print(path.read_text(encoding="utf-8"), flush=True)
    stored = json.loads(STORED.read_text())["figures"]
    return 0 if all(passes(name, figures(found["parity"]), stored) for name in stored) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(DeviceSettings, description=__doc__)))
