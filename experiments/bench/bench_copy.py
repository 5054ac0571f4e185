"""SOLAR and LLaMA Pro of a sharded checkpoint against `cp -r` of the same bytes, and against mergekit's same plan.

Command:   python experiments/bench/make_checkpoint.py --like llama-3-8b --layers 8 --output build/8b
           python -m venv build/mergekit && build/mergekit/bin/pip install mergekit
           python experiments/bench/bench_copy.py --model build/8b --mergekit build/mergekit/bin/mergekit-yaml
Run time:  some 5 minutes; disk for two copies of what comes out. Without --mergekit it is left out.
Expected:  at most 1.2 times `cp -r` with its bytes on the disk, at most 0.7 of mergekit's time and half of its memory;
           the figures of the last run are in experiments/results/bench_copy.md.

Whole processes, with what they import, and then the wait until all is on the disk (`sync`): ours waits by itself. They
take turns; before each, what the one before wrote is removed. LLaMA Pro's silenced outputs take no room on the disk in
ours (a file with holes), and mergekit writes them as it is told to, by scales of 0.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import tyro
from bench_report import write_report
from processes import Run, run

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.growth.job import ExpandJob, prepare_jobs
from lesa_jax.growth.settings import ExpandSettings

METHODS = ("solar", "llama_pro")


@dataclass(frozen=True)
class Settings:
    """What to run."""

    model: Path
    """As `make_checkpoint.py` writes it."""
    mergekit: Path | None = None
    """The script `mergekit-yaml` of an environment that has it."""
    turns: int = 3
    output: Path = Path("experiments/results/bench_copy.md")


def main(settings: Settings) -> None:
    rows, folder = [], settings.model.resolve().parent
    for method in METHODS:
        out, copy = folder / f"{method}-out", folder / f"{method}-copy"
        job = plan(settings.model, out, method)
        expand = [sys.executable, "-m", "lesa_jax.expand", "--model", str(settings.model), "--method", method]
        expand += ["--layers", str(job.plan.layers), "--output", str(out)]
        run(expand)
        rivals: dict[str, Callable[[], Run]] = {
            "lesa_jax": lambda command=expand, out=out: written(command, out),
            "cp -r": lambda out=out, copy=copy: written(["cp", "-r", str(copy), str(out)], out),
        }
        if settings.mergekit is not None:
            recipe = folder / "recipe.yaml"
            recipe.write_text(mergekit_recipe(settings.model, job))
            merge = [str(settings.mergekit), str(recipe), str(out), "--no-copy-tokenizer", "--lazy-unpickle"]
            rivals["mergekit"] = lambda command=merge, out=out: written(command, out)
        out.rename(copy)
        taken = {name: [] for name in rivals}
        for _ in range(settings.turns):
            for name, rival in rivals.items():
                taken[name].append(rival())
                print(f"{method}, {name}: {taken[name][-1].seconds:.1f} s", flush=True)
        shutil.rmtree(out)
        shutil.rmtree(copy)
        ours = median(one.seconds for one in taken["lesa_jax"])
        for name, times in taken.items():
            seconds, memory = median(one.seconds for one in times), max(one.peak for one in times)
            rows.append((method, name, f"{seconds:.1f}", f"{ours / seconds:.2f}", f"{memory / 1e9:.2f}"))
    what = (
        f"{settings.model.name}, {job.plan.source_layers} -> {job.plan.layers} layers, {job.layout.nbytes / 1e9:.1f} GB"
    )
    header = ("method", "by", "s", "ours / this", "memory, GB")
    write_report(settings.output, "experiments/bench/bench_copy.py", ("lesa_jax", "numpy"), what, header, rows)


def plan(model: Path, output: Path, method: str) -> ExpandJob:
    [job] = prepare_jobs([ExpandSettings(str(model), output, method=method)], open_checkpoint(model))
    if isinstance(job, InputError):
        raise SystemExit(f"error: {job}")
    return job


def written(command: list[str], output: Path) -> Run:
    """Runs a command that makes `output`, which is removed before; the seconds are those until all is on the disk."""
    if output.exists():
        shutil.rmtree(output)
    os.sync()
    start = time.perf_counter()
    done = run(command)
    os.sync()
    return replace(done, seconds=time.perf_counter() - start)


def mergekit_recipe(model: Path, job: ExpandJob) -> str:
    """The plan's runs of layers as slices; new layers that are silent with scales of 0 on what writes."""
    slots = [(slot.layer, slot.new and job.preserves) for slot in job.plan.slots]
    breaks = [0, *(i for i, (a, b) in enumerate(pairwise(slots), 1) if b != (a[0] + 1, a[1]) or b[1]), len(slots)]
    lines = ["slices:"]
    for first, last in pairwise(breaks):
        layer, silent = slots[first]
        lines += [f"- sources:\n  - model: {model.resolve()}\n    layer_range: [{layer}, {layer + last - first}]"]
        if silent:
            scales = "".join(f"\n      - filter: {name}\n        value: 0.0" for name in ("o_proj", "down_proj"))
            lines += [f"    parameters:\n      scale:{scales}\n      - value: 1.0"]
    return "\n".join([*lines, "merge_method: passthrough", "dtype: bfloat16", ""])


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
