"""One variant of a comparison, measured before training and trained."""

import math
import shutil
import statistics
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json, write_json
from lesa_jax.base.units import parse_count
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.comparison.folder import model_folder, row_file
from lesa_jax.comparison.result import Outcome, Point
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import BASE, Variant
from lesa_jax.evaluation.run import EvaluateSettings, evaluate
from lesa_jax.models.config import ModelConfig
from lesa_jax.planning.record import read_growth
from lesa_jax.tracking.log import METRICS, read_metrics
from lesa_jax.training.run import train
from lesa_jax.training.settings import AdamW, BatchSettings, HeldOutSettings, KeepSettings, TrainSettings


def measure(settings: CompareSettings, variant: Variant, failures: Mapping[Path, InputError]) -> Outcome:
    """A variant before training: one perplexity for each seed that grows a model of its own.

    Args:
      settings: of the comparison.
      variant: the row.
      failures: why models could not be grown, by their folder.
    """
    rows = []
    for seed in variant.starts(settings.seeds):
        folder, path = model_folder(settings, variant, seed), row_file(settings, variant, seed)
        try:
            if folder in failures:
                raise failures[folder]
            if not path.exists():
                write_json(path, measured_row(settings, variant, folder))
        except InputError as error:
            return Outcome(variant.method, variant.place, 0, (), 0, 0, error=str(error))
        rows.append(read_json(path, ""))
    row = rows[0]
    return Outcome(
        method=variant.method,
        placement=variant.place,
        layers=row["layers"],
        new_layers=tuple(row["new_layers"]),
        parameters=row["parameters"],
        new_parameters=row["new_parameters"],
        initial=tuple(row["perplexity"] for row in rows),
        curves=((Point(0, 0.0, 0.0, row["nll"]),),) if variant == BASE else (),
    )


def measured_row(settings: CompareSettings, variant: Variant, folder: Path) -> dict[str, Any]:
    """Size and perplexity of a checkpoint; base may have a growth.json of its own, which tells of no variant."""
    checkpoint = open_checkpoint(folder)
    layers = ModelConfig.from_hf(checkpoint.config).num_layers
    growth = None if variant == BASE else read_growth(folder, layers)
    sizes = growth.measurements["parameters"] if growth else {"before": checkpoint.parameters}
    measured = evaluate(
        EvaluateSettings(
            str(folder),
            text=settings.text,
            ppl_protocol=settings.ppl_protocol,
            sequence_length=settings.sequence_length,
        )
    )
    return {
        "layers": layers,
        "new_layers": list(growth.plan.new_layers) if growth else [],
        "parameters": checkpoint.parameters,
        "new_parameters": checkpoint.parameters - sizes["before"],
        "perplexity": measured["perplexity"],
        "nll": measured["nll"],
    }


def trained_curve(settings: CompareSettings, variant: Variant, seed: int) -> dict[str, Any] | None:
    """Trains one variant, or goes on with it.

    Returns:
      Its held-out losses with what was spent on them; None if a signal stopped it.
    """
    run = train(run_settings(settings, variant, seed))
    if run.stopped:
        return None
    output = Path(run.output)
    shutil.rmtree(output / "checkpoints")
    return {
        "step_flops": run.cost.total,
        "backward_depth": run.cost.backward_depth,
        "points": [list(astuple(point)) for point in curve_points(output, run.cost.total)],
    }


def run_settings(settings: CompareSettings, variant: Variant, seed: int) -> TrainSettings:
    """How one variant is trained."""
    training, length = settings.training, settings.sequence_length
    assert length is not None
    every = max(1, parse_count("--eval-every", training.eval_every) // (training.batch_size * length))
    return TrainSettings(
        model=str(model_folder(settings, variant, seed)),
        data=training.train_data,
        output=settings.output / "runs" / f"{variant.name}-{seed}",
        tokens=training.train_tokens,
        train="all" if variant == BASE else training.train,
        seed=seed,
        batch=BatchSettings(batch_size=training.batch_size, sequence_length=length),
        optimizer=AdamW(learning_rate=training.learning_rate),
        held_out=HeldOutSettings(eval_text=settings.text, eval_every=every, ppl_protocol=settings.ppl_protocol),
        keeping=KeepSettings(save_every=every, keep=1, token_cache=settings.output / "tokens", export="none"),
    )


def curve_points(output: Path, flops: float) -> list[Point]:
    """The evaluations of a run; seconds are those of training steps only, without compilation and measuring."""
    steps = read_metrics(output / METRICS)
    rates = [step["tokens_per_second"] for step in steps if step["tokens_per_second"]]
    typical = statistics.median(rates) if rates else math.nan
    points, seconds, before = [], 0.0, 0
    for step in steps:
        seconds += (step["tokens"] - before) / (step["tokens_per_second"] or typical)
        before = step["tokens"]
        if step["eval_loss"] is not None:
            points.append(Point(before, before * flops, seconds, step["eval_loss"]))
    return points
