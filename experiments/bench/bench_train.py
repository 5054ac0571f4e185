"""Frozen training against transformers + torch, against our own full training, and compile time against depth.

Command:   python experiments/bench/bench_train.py
Run time:  about 8 minutes on 2 CPU cores. Needs torch (requirements-test.txt).
Expected:  at least the speed of torch at width 1024; a frozen step in at most 0.75 of a full step's time and 0.70 of
           its operations; compile time that does not grow with depth. The last run's figures are in
           experiments/results/bench_train.md.

Random llamas, duplicated layers, random tokens: nothing here depends on the values. Both sides run whole steps (loss,
gradient, clip, AdamW) on the same sequences; the median of the steps after the first counts.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from bench_report import write_report
from random_llama import random_batch, write_llama

from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.models.config import read_config
from lesa_jax.models.parts import output_tensor
from lesa_jax.parallel.mesh import make_mesh
from lesa_jax.planning.record import read_growth
from lesa_jax.training.cost import token_cost
from lesa_jax.training.optimizer import Optimizer
from lesa_jax.training.parameters import choose, load_model_leaves, make_leaves
from lesa_jax.training.settings import OptimizerSettings
from lesa_jax.training.sharding import leaf_shardings
from lesa_jax.training.state import first_state, state_shardings
from lesa_jax.training.step import Program, compile_step

OPTIMIZER = Optimizer(OptimizerSettings(learning_rate=1e-4), steps=100)


@dataclass(frozen=True)
class Shape:
    """A model and a batch."""

    width: int
    inner: int
    layers: int
    heads: int
    batch: int
    tokens: int = 256


SHAPES = (Shape(192, 512, 16, 6, 8), Shape(1024, 2816, 12, 16, 4))


@dataclass(frozen=True)
class BenchTrainSettings:
    """What to run."""

    steps: int = 5
    output: Path = Path("experiments/results/bench_train.md")


def write_model(folder: Path, shape: Shape, layers: int) -> Path:
    """A random llama, grown to half as many layers again, new ones on top."""
    base = write_llama(folder / "base", shape.width, shape.inner, layers, shape.heads)
    expand(ExpandSettings(str(base), folder / "grown", method="duplicate", placement="top"))
    return folder / "grown"


@dataclass(frozen=True)
class Measured:
    """Of one kind of training: tokens a second, seconds of the first step, operations of a token, optimiser bytes."""

    rate: float
    first_step: float
    formula: float
    optimizer_bytes: int


def train_ours(model: Path, shape: Shape, train: str, dtype: str, steps: int) -> Measured:
    checkpoint = open_checkpoint(model)
    config = read_config(checkpoint.config)
    trained = choose(train, config, read_growth(model, config.num_layers).plan)
    segments, leaves = make_leaves(config, trained)
    mesh = make_mesh({"data": 1, "fsdp": 1, "expert": 1, "tensor": 1})
    shardings = leaf_shardings(leaves, mesh)
    params, frozen = load_model_leaves(checkpoint, leaves, shardings, dtype)
    program = Program(config, segments, dtype, "block", output_tensor(config) in trained)
    placed = state_shardings(params, shardings, mesh, OPTIMIZER.rule)
    state = first_state(params, OPTIMIZER.rule, placed)
    step = compile_step(program, OPTIMIZER.rule, placed, mesh)
    nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state.optimizer))
    seconds = []
    for number in range(steps):
        batch = random_batch(config.vocab_size, shape.batch, shape.tokens, number)
        started = time.perf_counter()
        state, metrics = step(state, frozen, batch, np.float32(1e-4))
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - started)
    tokens = shape.batch * shape.tokens
    cost = token_cost(config, leaves, shape.tokens)
    return Measured(tokens / statistics.median(seconds[1:]), seconds[0], cost.total, nbytes)


def train_torch(model: Path, shape: Shape, train: str, dtype: str, steps: int) -> dict[str, Any]:
    script = Path(__file__).with_name("torch_train.py")
    options = {"model": model, "train": train, "dtype": dtype, "steps": steps, "batch-size": shape.batch}
    command = [sys.executable, str(script), *(word for k, v in options.items() for word in (f"--{k}", str(v)))]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def compare(folder: Path, settings: BenchTrainSettings) -> list[tuple[str, ...]]:
    rows = []
    for shape in SHAPES:
        model = write_model(folder / str(shape.width), shape, shape.layers)
        name = f"width {shape.width}, {shape.layers} -> {shape.layers * 3 // 2} layers"
        ours: dict[str, Measured] = {}
        for train in ("new", "all"):
            ours[train] = train_ours(model, shape, train, "float32", settings.steps)
            torch = train_torch(model, shape, train, "float32", settings.steps)
            rows.append(
                (
                    f"{name}, train {train}",
                    f"{ours[train].rate:.0f}",
                    f"{torch['tokens_per_second']:.0f}",
                    f"{ours[train].rate / torch['tokens_per_second']:.2f}",
                    f"{ours[train].first_step:.1f} / {torch['first_step']:.1f}",
                )
            )
        new, whole = ours["new"], ours["all"]
        rows.append(
            (
                f"{name}, new against all",
                f"time {whole.rate / new.rate:.2f}",
                f"operations {new.formula / whole.formula:.2f}",
                f"optimiser {new.optimizer_bytes / 1e6:.0f} of {whole.optimizer_bytes / 1e6:.0f} MB",
                "",
            )
        )
        if shape is SHAPES[0]:
            half = train_ours(model, shape, "new", "bfloat16", settings.steps)
            torch = train_torch(model, shape, "new", "bfloat16", settings.steps)
            rate = torch["tokens_per_second"]
            cells = f"{half.rate:.0f}", f"{rate:.0f}", f"{half.rate / rate:.2f}", f"{half.first_step:.1f} / "
            rows.append((f"{name}, train new, bfloat16", *cells[:3], cells[3] + f"{torch['first_step']:.1f}"))
    return rows


def compile_times(folder: Path) -> list[tuple[str, ...]]:
    """Seconds to the end of a first step of few tokens, which is nearly all compilation."""
    seconds = []
    for layers in (16, 32, 64):
        shape = replace(SHAPES[0], batch=1, tokens=32)
        model = write_model(folder / f"deep{layers}", shape, layers * 2 // 3 + 1)
        jax.clear_caches()
        seconds.append(train_ours(model, shape, "new", "float32", 2).first_step)
    return [("first step at 16, 32, 64 layers, s", *(f"{value:.1f}" for value in seconds), "")]


def main(settings: BenchTrainSettings) -> None:
    with tempfile.TemporaryDirectory() as name:
        rows = compare(Path(name), settings) + compile_times(Path(name))
    header = ("", "lesa_jax, tokens/s", "torch, tokens/s", "ratio", "first step, s (ours / torch)")
    what, packages = "sequences of 256 tokens, float32", ("jax", "torch", "transformers")
    write_report(settings.output, "experiments/bench/bench_train.py", packages, what, header, rows)


if __name__ == "__main__":
    main(tyro.cli(BenchTrainSettings, description=__doc__))
