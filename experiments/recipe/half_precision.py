"""Does half precision change what is learned: of products and gradients (bfloat16), and of what AdamW remembers.

Command:   python experiments/recipe/half_precision.py
Run time:  a quarter of an hour on 2 CPU cores for the demo model. Stopped, it goes on when the command is given again.
Expected:  experiments/results/half_precision.md: held-out losses at the same steps, three seeds, and whether the ways
           differ by more than seeds do.

The model is grown by silent copies, which are trained on numpy's source text. A seed is an order of the data; all ways
see the same batches. In float32 gradients are float32; in bfloat16 those of layers' matrices are bfloat16.
"""

import statistics
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from lesa_jax import demo
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.training.run import train
from lesa_jax.training.settings import BatchSettings, DeviceSettings, HeldOutSettings, OptimizerSettings, TrainSettings

Precision = Literal["float32", "bfloat16"]
WAYS: dict[str, tuple[Precision, Precision]] = {
    "float32": ("float32", "float32"),
    "bfloat16": ("bfloat16", "float32"),
    "bfloat16, moments bfloat16": ("bfloat16", "bfloat16"),
}


@dataclass(frozen=True)
class Settings:
    """What to run."""

    model: str | None = None
    """Checkpoint; by default the demo model."""
    tokens: str = "100k"
    learning_rate: float = 3e-3
    seeds: int = 3
    output: Path = Path("build/half_precision")
    """The grown model, the text and the runs."""
    results: Path = Path(__file__).parents[1] / "results"


def main(settings: Settings) -> None:
    settings.output.mkdir(parents=True, exist_ok=True)
    grown, text, held_out = (settings.output / name for name in ("grown", "corpus.txt", "held-out.txt"))
    if not grown.exists():
        expand(ExpandSettings(demo.named(settings.model), grown, method="llama_pro"))
    files = sorted(Path(np.__file__).parent.glob("*/*.py"))
    text.write_text("".join(file.read_text(encoding="utf-8") for file in files), encoding="utf-8")
    held_out.write_text(demo.evaluation_text(), encoding="utf-8")
    losses = {
        way: [trained(settings, grown, text, held_out, way, seed) for seed in range(settings.seeds)] for way in WAYS
    }
    settings.results.mkdir(parents=True, exist_ok=True)
    report = settings.results / "half_precision.md"
    report.write_text("\n".join(lines(settings, losses)) + "\n")
    print(report.read_text())


def trained(settings: Settings, grown: Path, text: Path, held_out: Path, way: str, seed: int) -> float:
    """Held-out loss at the end of a run, in nats a token; of one that is finished already it is found again."""
    dtype, moments = WAYS[way]
    result = train(
        TrainSettings(
            model=str(grown),
            data=str(text),
            output=settings.output / f"{dtype}-{moments}-{seed}",
            tokens=settings.tokens,
            seed=seed,
            batch=BatchSettings(batch_size=4, sequence_length=256),
            optimizer=OptimizerSettings(learning_rate=settings.learning_rate, moments=moments),
            devices=DeviceSettings(dtype=dtype),
            held_out=HeldOutSettings(eval_text=held_out, eval_every=10**6),
        )
    )
    if result.stopped:
        raise SystemExit("stopped; the same command goes on")
    return result.losses["eval_loss"][1]


def lines(settings: Settings, losses: dict[str, list[float]]) -> list[str]:
    """The table, and the differences of ways beside those of seeds."""
    spread = statistics.stdev(losses["float32"])
    table = [
        "# Half precision of gradients and of moments",
        "",
        f"`experiments/recipe/half_precision.py --tokens {settings.tokens}`: held-out loss, nats a token.",
        "",
        "| way | " + " | ".join(f"seed {seed}" for seed in range(settings.seeds)) + " | mean |",
        "|---|" + "---|" * (settings.seeds + 1),
    ]
    for way, found in losses.items():
        cells = [f"{loss:.4f}" for loss in (*found, statistics.mean(found))]
        table.append(f"| {way} | " + " | ".join(cells) + " |")
    table += [
        "",
        f"Seeds of float32 differ by {spread:.4f} (standard deviation). Mean difference of ways on equal data:",
    ]
    for one, other in combinations(losses, 2):
        pairs = [b - a for a, b in zip(losses[one], losses[other], strict=True)]
        error = statistics.stdev(pairs) / len(pairs) ** 0.5
        table.append(f"- {other} less {one}: {statistics.mean(pairs):+.4f} +- {error:.4f}")
    return table


if __name__ == "__main__":
    main(tyro.cli(Settings))
