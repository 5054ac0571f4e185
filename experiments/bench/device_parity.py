"""What a device computes in float32 beside what a CPU computed: growth, evaluation, training steps, on the demo model.

Run by `device.py`; prints one JSON line for each figure. `device.py --store` writes the CPU's figures down again, after
a change of the demo model or of what is computed from it.

The text is the project's LICENSE, which is the same everywhere; the standard library, which the demo model is judged
on elsewhere, is not.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.demo import MODEL_DIRECTORY
from lesa_jax.evaluation.run import evaluate
from lesa_jax.evaluation.settings import EvaluateSettings
from lesa_jax.families.kinds import WeightKind
from lesa_jax.growth.compute import old_matrices
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.initializers.lesa.svd import layer_svd
from lesa_jax.tracking.log import METRICS
from lesa_jax.training.run import train
from lesa_jax.training.settings import BatchSettings, DeviceSettings, HeldOutSettings, OptimizerSettings, TrainSettings

TEXT = Path(__file__).parents[2] / "LICENSE"
STEPS = 20


def measure(folder: Path) -> Iterator[tuple[str, list[float]]]:
    """All figures with their names; writes grown models and a run into `folder`."""
    text = folder / "text.txt"
    text.write_bytes(TEXT.read_bytes())
    yield "singular values, up_proj", singular_values("mlp.up_proj")
    yield "perplexity, demo", [perplexity(None, text)]
    for method in ("llama_pro", "lesa_raw", "lesa_published"):
        print(f"parity: expand --method {method}", file=sys.stderr, flush=True)
        grown = folder / method
        kinds = expand(ExpandSettings(None, grown, method=method)).kinds.values()
        yield f"perplexity, {method}", [perplexity(str(grown), text)]
        if method != "llama_pro":
            yield f"predictors' losses, {method}", [kind.loss for kind in kinds if kind.loss is not None]
            yield f"norms of new matrices, {method}", [kind.new_norm for kind in kinds]
    print("parity: train", file=sys.stderr, flush=True)
    yield from train_figures(folder / "llama_pro", text, folder / "run")


def singular_values(name: str) -> list[float]:
    """Of one kind of the demo model's weights, all layers side by side."""
    checkpoint = open_checkpoint(MODEL_DIRECTORY)
    [kind] = [WeightKind(stack) for stack in checkpoint.stacks if WeightKind(stack).name == name]
    return np.asarray(layer_svd(old_matrices(checkpoint, kind)).s).tolist()


def perplexity(model: str | None, text: Path) -> float:
    return evaluate(EvaluateSettings(model, text))["perplexity"]


def train_figures(model: Path, text: Path, run: Path) -> Iterator[tuple[str, list[float]]]:
    """Losses and gradient norms of the first steps of a frozen run."""
    train(
        TrainSettings(
            str(model),
            str(text),
            run,
            steps=STEPS,
            batch=BatchSettings(batch_size=8, sequence_length=64),  # up to 8 devices share it
            optimizer=OptimizerSettings(learning_rate=1e-3),
            devices=DeviceSettings(dtype="float32"),
            held_out=HeldOutSettings(hold_out=0),
        )
    )
    rows = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    for key in ("loss", "grad_norm"):
        yield f"{key}, {STEPS} steps", [row[key] for row in rows]


if __name__ == "__main__":
    jax.config.update("jax_default_matmul_precision", "highest")
    with tempfile.TemporaryDirectory() as name:
        for figure, values in measure(Path(name)):
            print(json.dumps({"figure": figure, "values": values}), flush=True)
