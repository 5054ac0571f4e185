"""What looking at a model takes: seconds and peak memory at 16, 32 and 64 layers.

Command:   python experiments/bench/bench_analyze.py
Run time:  about 3 minutes on one core.
Expected:  peak memory of what is measured on a text does not follow depth; its time follows the square of it, as each
           layer is missing once; the time of the matrices follows depth. The figures of the last run are in
           experiments/results/bench_analyze.md.

Models are synthetic: width 128, feed-forward 32, so that streams of 2,048 tokens (1 MB) outweigh layers. Streams get 32
MB instead of `evaluation.bypass.STREAM_BYTES`, so that 16 missing layers are followed at a time, and none of the models
is small enough for memory to grow within that limit. Every row of the table is two processes, imports and compilation
included; memory is the kernel's count.
"""

import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro
from random_llama import VOCABULARY, write_llama

from lesa_jax.analysis.measure import measure
from lesa_jax.analysis.weights import measure_weights
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.evaluation import bypass
from lesa_jax.models.config import read_model

WIDTH, INNER, HEADS = 128, 32, 2
ROWS, TOKENS = 4, 512
STREAM_BYTES = 1 << 25


@dataclass(frozen=True)
class Settings:
    """What to run."""

    layers: tuple[int, ...] = (16, 32, 64)
    output: Path = Path("experiments/results/bench_analyze.md")
    only: tuple[str, Path] | None = None
    """For the processes that are timed: text or matrices, and a model."""


def main(settings: Settings) -> None:
    if settings.only is not None:
        work(*settings.only)
        return
    lines = [
        f"`python experiments/bench/bench_analyze.py`: {platform.machine()}, {jax.default_backend()}, jax "
        f"{jax.__version__}; width {WIDTH}, {ROWS * TOKENS:,} tokens, streams of {STREAM_BYTES >> 20} MB at a time.",
        "",
        "| layers | on the text, s | peak, GB | matrices, s | peak, GB |",
        "|---|---|---|---|---|",
    ]
    for layers in settings.layers:
        with tempfile.TemporaryDirectory() as place:
            model = write_llama(Path(place) / "model", WIDTH, INNER, layers, HEADS)
            found = [timed(what, model) for what in ("text", "matrices")]
        figures = " | ".join(f"{seconds:.1f} | {peak / 1e9:.3f}" for seconds, peak in found)
        lines.append(f"| {layers} | {figures} |")
        print(lines[-1])
    settings.output.write_text("\n".join(lines) + "\n")


def timed(what: str, model: Path) -> tuple[float, int]:
    """Seconds and peak bytes of a process that measures one of both."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--only", what, str(model)]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, json.loads(said.stdout)


def work(what: str, model: Path) -> None:
    """Measures, and prints the peak of this process."""
    checkpoint = open_checkpoint(model)
    config = read_model(checkpoint)
    if what == "text":
        bypass.STREAM_BYTES = STREAM_BYTES
        rows = np.random.default_rng(0).integers(0, VOCABULARY, (ROWS, TOKENS), np.int32)
        measure(checkpoint, config, rows, lambda done: None)
    else:
        measure_weights(checkpoint, config.num_layers, lambda kind: None)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
