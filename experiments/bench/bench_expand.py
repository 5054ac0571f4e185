"""LESA expansion against the published algorithm in torch, on this machine.

Command:   python experiments/bench/bench_expand.py
Run time:  about 4 minutes on 2 CPU cores. Needs torch (requirements-test.txt).
Expected:  LESA at least 3.5 times as fast as torch in at most 0.4 of its memory; stage times near their floors. The
           figures of the last run are in experiments/results/bench_expand.md.

The checkpoint is synthetic: 12 layers of width 1024 and feed-forward 2816, float32, 6 new layers. Whole processes are
timed from outside, imports and compilation included; peak memory is the kernel's count for the finished process. A
floor is what the work must take at rates that are measured in the same run (`lesa_floors`).
"""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import jax
import tyro
from bench_report import write_report
from floors import seconds
from lesa_floors import lesa_floors, measure_rates
from processes import expansion, run
from random_llama import matrix_shapes, write_llama

from lesa_jax.base.scratch import Scratch
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.families.kinds import WeightKind
from lesa_jax.growth.compute import old_matrices
from lesa_jax.growth.matrices import OldMatrices
from lesa_jax.initializers.lesa.predict import decompose, learn
from lesa_jax.planning.methods import Lesa

WIDTH, INNER, LAYERS, NEW = 1024, 2816, 12, 6
SHAPES = matrix_shapes(WIDTH, INNER)


@dataclass(frozen=True)
class BenchExpandSettings:
    """What to run."""

    output: Path = Path("experiments/results/bench_expand.md")


def write_checkpoint(folder: Path, layers: int) -> None:
    """A random llama of the benchmark's shape; beyond 12 layers the weights repeat."""
    write_llama(folder, WIDTH, INNER, layers, heads=16, distinct=LAYERS)


def stage_times(folder: Path) -> dict[str, float]:
    """Seconds of the stages of `lesa_floors`, summed over kinds, one by one in this process, compilation included."""
    checkpoint = open_checkpoint(folder)
    times = {"decompose": 0.0, "learn": 0.0}
    for stack in checkpoint.stacks:
        if stack.sizes and len(stack.spec.shape) == 2:
            kind, basis = old_matrices(checkpoint, WeightKind(stack)), None

            def take_apart(kind: OldMatrices = kind) -> None:
                nonlocal basis
                basis = decompose(kind, "svd", Scratch(folder, 1 << 34))

            times["decompose"] += seconds(take_apart)
            assert basis is not None
            times["learn"] += seconds(lambda basis=basis: learn(basis, jax.random.key(0), Lesa()))
    return times


def compare_lesa(folder: Path) -> list[tuple[str, str, str, str]]:
    """Ours against torch, whole processes, and our stages against their floors."""
    model = folder / "model"
    write_checkpoint(model, LAYERS)
    ours = run(expansion(model=model, output=folder / "ours", method="lesa", layers=LAYERS + NEW))
    script = Path(__file__).with_name("torch_lesa.py")
    command = [
        sys.executable,
        str(script),
        "--model",
        str(model),
        "--output",
        str(folder / "torch"),
        "--layers",
        str(LAYERS + NEW),
    ]
    torch = run(command)
    rates, stages = measure_rates(), stage_times(model)
    floors = lesa_floors(SHAPES.values(), LAYERS, rates)
    floor = sum(floors.values())
    torch_stages = json.loads(torch.output)["seconds"]
    rows = [
        (
            "whole process, s",
            f"{ours.seconds:.1f}",
            f"{torch.seconds:.1f}",
            f"{torch.seconds / ours.seconds:.2f} x faster",
        ),
        (
            "peak memory, GB",
            f"{ours.peak / 1e9:.2f}",
            f"{torch.peak / 1e9:.2f}",
            f"{ours.peak / torch.peak:.2f} of torch",
        ),
        ("floor of the whole, s", f"{floor:.1f}", "", f"we take {ours.seconds / floor:.2f} of it"),
    ]
    for (name, taken), theirs in zip(stages.items(), ("svd", "train"), strict=True):
        bound = floors[name]
        rows.append(
            (
                f"{name}, s",
                f"{taken:.1f}",
                f"{torch_stages[theirs]:.1f}",
                f"floor {bound:.1f}: {taken / bound:.2f} of it",
            )
        )
    rows.append(
        ("stages of ours, s", ", ".join(f"{k} {v:.1f}" for k, v in json.loads(ours.output)["seconds"].items()), "", "")
    )
    rows.append(("rates", str(rates), "", ""))
    return rows


def main(settings: BenchExpandSettings) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = compare_lesa(folder)
    header = ("", "lesa_jax", "torch or cp", "ratio")
    what = f"{LAYERS} layers, width {WIDTH}, {NEW} new layers"
    write_report(settings.output, "experiments/bench/bench_expand.py", ("jax", "torch", "numpy"), what, header, rows)


if __name__ == "__main__":
    main(tyro.cli(BenchExpandSettings, description=__doc__))
