"""One variant of a comparison, measured before training and trained."""

import math
import shutil
import statistics
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError, Interrupted
from lesa_jax.base.files import read_json, write_json
from lesa_jax.base.units import parse_count
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.comparison.folder import model_folder, row_file
from lesa_jax.comparison.result import Outcome, Point
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import BASE, Variant, grown_seeds, name_of
from lesa_jax.evaluation.run import EvaluateSettings, evaluate
from lesa_jax.models.config import ModelConfig
from lesa_jax.planning.record import read_growth
from lesa_jax.tracking.log import METRICS, read_metrics
from lesa_jax.training.run import train
from lesa_jax.training.settings import AdamW, BatchSettings, HeldOutSettings, KeepSettings, TrainSettings


def measure(
    settings: CompareSettings, variant: Variant | None, failures: Mapping[tuple[str, int], InputError]
) -> Outcome:
    """A variant before training, or base: one perplexity for each seed that grows a model of its own."""
    name = name_of(variant)
    method, place = (BASE, "-") if variant is None else (variant.method, variant.place)
    rows = []
    for seed in range(1) if variant is None else grown_seeds(settings, variant):
        path = row_file(settings, variant, seed)
        try:
            if (name, seed) in failures:
                raise failures[name, seed]
            if not path.exists():
                write_json(path, measured_row(settings, variant, seed))
        except InputError as error:
            return Outcome(method, place, 0, (), 0, 0, error=str(error))
        rows.append(read_json(path, ""))
    row = rows[0]
    return Outcome(
        method=method,
        placement=place,
        layers=row["layers"],
        new_layers=tuple(row["new_layers"]),
        parameters=row["parameters"],
        new_parameters=row["new_parameters"],
        initial=tuple(row["perplexity"] for row in rows),
        curves=() if variant is not None else ((Point(0, 0.0, 0.0, row["nll"]),),),
    )


def measured_row(settings: CompareSettings, variant: Variant | None, seed: int) -> dict[str, Any]:
    """Size and perplexity of a variant's checkpoint, or of base, which may have a growth.json of its own."""
    folder = model_folder(settings, variant, seed)
    checkpoint = open_checkpoint(folder)
    growth = None if variant is None else read_growth(folder)
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
        "layers": ModelConfig.from_hf(checkpoint.config).num_layers,
        "new_layers": list(growth.plan.new_layers) if growth else [],
        "parameters": checkpoint.parameters,
        "new_parameters": checkpoint.parameters - sizes["before"],
        "perplexity": measured["perplexity"],
        "nll": measured["nll"],
    }


def trained_curve(settings: CompareSettings, variant: Variant | None, seed: int) -> dict[str, Any]:
    """Trains one variant, or goes on with it; its held-out losses with what was spent on them.

    Raises:
      Interrupted: training was stopped by a signal, and can go on.
    """
    run = train(run_settings(settings, variant, seed))
    if run.stopped:
        raise Interrupted
    output = Path(run.output)
    shutil.rmtree(output / "checkpoints")
    return {
        "step_flops": run.cost.total,
        "backward_depth": run.cost.backward_depth,
        "points": [list(astuple(point)) for point in curve_points(output, run.cost.total)],
    }


def run_settings(settings: CompareSettings, variant: Variant | None, seed: int) -> TrainSettings:
    """How one variant is trained."""
    training, length = settings.training, settings.sequence_length
    assert length is not None
    every = max(1, parse_count("--eval-every", training.eval_every) // (training.batch_size * length))
    return TrainSettings(
        model=str(model_folder(settings, variant, seed)),
        data=training.train_data,
        output=settings.output / "runs" / f"{name_of(variant)}-{seed}",
        tokens=training.train_tokens,
        train="all" if variant is None else training.train,
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
