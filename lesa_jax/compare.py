"""Growth methods side by side on one model: `python -m lesa_jax.compare --model DIR --text FILE --output DIR`.

All variants are grown together, so that every weight is read, taken apart and learned once; then each is measured, and
with --train-data trained on the same batches. The report is made from what lies finished in the output folder, so that
several processes may work on one comparison, each on a device of its own.
"""

import math
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lesa_jax import demo
from lesa_jax.checkpoint import open_checkpoint, read_json
from lesa_jax.cli import read_text, run_command
from lesa_jax.compare_settings import (
    BASE,
    CompareSettings,
    Variant,
    check_settings,
    grown_seeds,
    name_of,
    variants,
    ways,
)
from lesa_jax.comparison_folder import (
    START_LOCK,
    curve_file,
    lock_file,
    make_output,
    model_folder,
    row_file,
    start,
    turn,
)
from lesa_jax.comparison_report import Comparison, Outcome, Point, write_report
from lesa_jax.comparison_table import markdown
from lesa_jax.errors import InputError
from lesa_jax.evaluate import EvaluateSettings, evaluate
from lesa_jax.grow import grow
from lesa_jax.growth import FILE as GROWTH_FILE
from lesa_jax.growth import PACKAGES, read_growth
from lesa_jax.hub import resolve_model
from lesa_jax.methods import find_method
from lesa_jax.metrics import row_length
from lesa_jax.models import ModelConfig
from lesa_jax.run_log import METRICS, read_metrics
from lesa_jax.train import train
from lesa_jax.train_settings import TrainSettings, parse_count
from lesa_jax.writer import write_json


def compare(settings: CompareSettings) -> Comparison:
    """Compares growth methods; see `CompareSettings`. Goes on with a comparison that is already in the output folder.

    Several processes may be given the same settings at a time: one grows and measures, then each trains what no other
    has taken, and all return the whole.

    Returns:
      What was measured; the report in the output folder says the same.

    Raises:
      InputError: bad input, found before anything is grown. A method that fails is a row of the result, no error.
    """
    check_settings(settings)
    wanted = variants(settings)
    base = demo.MODEL_DIRECTORY if settings.model is None else resolve_model(settings.model, settings.revision)
    config = ModelConfig.from_hf(open_checkpoint(base).config)
    length = row_length(settings.ppl_protocol, config, settings.sequence_length)
    settings = replace(settings, model=str(base), revision=None, sequence_length=length)
    if settings.text is not None:
        read_text("--text", settings.text)
    make_output(settings.output)
    with turn(settings.output / START_LOCK, "grows the models and measures them"):
        settings = start(settings)
        failures = grow_missing(settings)
        outcomes = {variant: measure(settings, variant, failures) for variant in (None, *wanted)}
    if settings.train_data is not None:
        train_missing(settings, outcomes)
    if not settings.keep_models:
        remove_models(settings)
    return report(settings, outcomes)


def grow_missing(settings: CompareSettings) -> dict[tuple[str, int], InputError]:
    """Grows what is neither measured nor there; returns why some variants cannot be grown."""
    missing = []
    for variant, seed, way in ways(settings, settings.output / "models"):
        trained = settings.train_data is None or all(
            curve_file(settings, variant, s).exists() for s in trained_seeds(settings, variant, seed)
        )
        measured = row_file(settings, variant, seed).exists()
        if not (measured and trained) and not (way.output / GROWTH_FILE).exists():
            missing.append((variant, seed, way))
    if not missing:
        return {}
    outcomes = grow([way for _, _, way in missing])
    return {
        (variant.name, seed): outcome
        for (variant, seed, _), outcome in zip(missing, outcomes, strict=True)
        if isinstance(outcome, InputError)
    }


def remove_models(settings: CompareSettings) -> None:
    """Removes the grown checkpoints, but none of another process that compares other methods here."""
    folder = settings.output / "models"
    for _, _, way in ways(settings, folder):
        shutil.rmtree(way.output, ignore_errors=True)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def trained_seeds(settings: CompareSettings, variant: Variant, grown: int) -> Sequence[int]:
    """The training seeds that use the model grown with this seed."""
    return [grown] if find_method(variant.method).random else range(settings.seeds)


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


def train_missing(settings: CompareSettings, outcomes: dict[Variant | None, Outcome]) -> None:
    """Trains what has no curve yet, and reports after each. An outcome whose training fails gets the reason.

    What another process is training is left to it and looked at last, in case it was stopped.
    """
    report(settings, outcomes)
    # Seed after seed, so that early reports compare all methods.
    runs = [(variant, seed) for seed in range(settings.seeds) for variant in outcomes]
    taken = []
    for number, (variant, seed) in enumerate(runs, 1):
        if outcomes[variant].error is not None or curve_file(settings, variant, seed).exists():
            continue
        try:
            with FileLock(lock_file(settings, variant, seed), blocking=False):
                print(f"training {name_of(variant)}, seed {seed} ({number} of {len(runs)})", file=sys.stderr)
                outcomes[variant] = train_variant(settings, variant, seed, outcomes[variant])
        except Timeout:
            taken.append((variant, seed))
        else:
            report(settings, outcomes)
    for variant, seed in taken:
        with turn(lock_file(settings, variant, seed), f"trains {name_of(variant)}, seed {seed}"):
            outcomes[variant] = train_variant(settings, variant, seed, outcomes[variant])


def train_variant(settings: CompareSettings, variant: Variant | None, seed: int, outcome: Outcome) -> Outcome:
    """Sees to it that the variant's curve of this seed is there; the outcome, with the reason if it cannot be."""
    path = curve_file(settings, variant, seed)
    if outcome.error is None and not path.exists():
        try:
            write_json(path, trained_curve(settings, variant, seed))
        except InputError as error:
            return replace(outcome, error=f"seed {seed}: {error}")
    return outcome


def report(settings: CompareSettings, outcomes: Mapping[Variant | None, Outcome]) -> Comparison:
    """Writes the report of what is there by now, from this process and others."""
    with FileLock(settings.output / "report.lock"):
        comparison = describe(settings, tuple(with_curves(settings, *item) for item in outcomes.items()))
        write_report(comparison, settings.output)
    return comparison


def with_curves(settings: CompareSettings, variant: Variant | None, outcome: Outcome) -> Outcome:
    """The outcome with the curves of all seeds that are trained by now."""
    paths = [curve_file(settings, variant, seed) for seed in range(settings.seeds)]
    curves = [read_json(path, "") for path in paths if settings.train_data is not None and path.exists()]
    if outcome.error is not None or not curves:
        return outcome
    return replace(
        outcome,
        curves=tuple(tuple(Point(*point) for point in curve["points"]) for curve in curves),
        step_flops=curves[0]["step_flops"],
        backward_depth=curves[0]["backward_depth"],
    )


def trained_curve(settings: CompareSettings, variant: Variant | None, seed: int) -> dict[str, Any]:
    """Trains one variant, or goes on with it; its held-out losses with what was spent on them."""
    assert settings.train_tokens is not None
    assert settings.sequence_length is not None
    folder = model_folder(settings, variant, seed)
    every = parse_count("--eval-every", settings.eval_every) // (settings.batch_size * settings.sequence_length)
    output = settings.output / "runs" / f"{name_of(variant)}-{seed}"
    run = train(
        TrainSettings(
            model=str(folder),
            data=settings.train_data,
            output=output,
            tokens=settings.train_tokens,
            train="all" if variant is None else settings.train,
            batch_size=settings.batch_size,
            sequence_length=settings.sequence_length,
            learning_rate=settings.learning_rate,
            seed=seed,
            eval_text=settings.text,
            eval_every=max(1, every),
            save_every=max(1, every),
            keep=1,
            ppl_protocol=settings.ppl_protocol,
            token_cache=settings.output / "tokens",
            export="none",
        )
    )
    if run.stopped:
        raise KeyboardInterrupt
    shutil.rmtree(output / "checkpoints")
    flops = run.forward_flops + run.backward_flops
    return {
        "step_flops": flops,
        "backward_depth": run.backward_depth,
        "points": [list(astuple(point)) for point in curve_points(output, flops)],
    }


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


def describe(settings: CompareSettings, outcomes: tuple[Outcome, ...]) -> Comparison:
    tokens = None if settings.train_tokens is None else parse_count("--train-tokens", settings.train_tokens)
    trained = {"new": "the new layers", "new+norms": "the new layers and all norms", "all": "everything"}
    assert settings.model is not None
    assert settings.sequence_length is not None
    return Comparison(
        model=Path(settings.model).name,
        text=str(settings.text.name if settings.text else ""),
        protocol=settings.ppl_protocol,
        sequence_length=settings.sequence_length,
        train_data=settings.train_data and Path(settings.train_data).name,
        train_tokens=tokens,
        trained=None if tokens is None else f"{trained.get(settings.train, settings.train)}; of base everything",
        seeds=tuple(range(settings.seeds)),
        outcomes=outcomes,
        command=" ".join(["python -m lesa_jax.compare", *sys.argv[1:]]),
        versions={name: version(name) for name in PACKAGES},
    )


def print_comparison(comparison: Comparison) -> None:
    print(markdown(comparison))


def main() -> int:
    return run_command(
        compare,
        CompareSettings,
        print_comparison,
        interrupted="run the same command again to go on",
    )


if __name__ == "__main__":
    sys.exit(main())
