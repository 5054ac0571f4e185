"""Growth methods side by side on one model: `python -m lesa_jax.compare --model DIR --text FILE --output DIR`.

All variants are grown together, so that every weight is read, taken apart and learned once; then each is measured, and
with --train-data trained on the same batches.
"""

import json
import math
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lesa_jax import demo
from lesa_jax.checkpoint import open_checkpoint, read_json
from lesa_jax.cli import read_text, run_command
from lesa_jax.compare_settings import CompareSettings, Variant, check_settings, grown_seeds, variants, ways
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
from lesa_jax.writer import write_json, write_text

BASE = "base"
SETTINGS_FILE = "compare.json"
# Options that another call for the same output may change.
FREE = ("output", "methods", "placements", "seeds", "keep_models")


def compare(settings: CompareSettings) -> Comparison:
    """Compares growth methods; see `CompareSettings`. Goes on with a comparison that is already in the output folder.

    Returns:
      What was measured; the report in the output folder says the same.

    Raises:
      InputError: bad input, found before anything is grown. A method that fails is a row of the result, no error.
    """
    started = time.monotonic()
    check_settings(settings)
    wanted = variants(settings)
    base = demo.MODEL_DIRECTORY if settings.model is None else resolve_model(settings.model, settings.revision)
    config = ModelConfig.from_hf(open_checkpoint(base).config)
    length = row_length(settings.ppl_protocol, config, settings.sequence_length)
    settings = replace(settings, model=str(base), revision=None, sequence_length=length)
    if settings.text is not None:
        read_text("--text", settings.text)
    start_output(settings)
    if settings.text is None:
        settings = replace(settings, text=settings.output / "text.txt")
        write_text(settings.output / "text.txt", demo.evaluation_text())

    failures = grow_missing(settings)
    outcomes = {variant: measure(settings, variant, failures) for variant in (None, *wanted)}

    def report() -> Comparison:
        comparison = describe(settings, tuple(outcomes.values()), time.monotonic() - started)
        write_report(comparison, settings.output)
        return comparison

    comparison = report()
    if settings.train_data is not None:
        for seed in range(settings.seeds):  # seed after seed, so that early reports compare all methods
            for variant in outcomes:
                outcomes[variant] = train_variant(settings, variant, seed, outcomes[variant])
                comparison = report()
    if not settings.keep_models:
        shutil.rmtree(settings.output / "models", ignore_errors=True)
    return comparison


def start_output(settings: CompareSettings) -> None:
    """Makes the output folder, or recognises an earlier comparison's.

    Raises:
      InputError: the folder holds something else, or a comparison with other settings.
    """
    path = settings.output / SETTINGS_FILE
    record = {name: value for name, value in asdict(settings).items() if name not in FREE}
    record = json.loads(json.dumps(record, default=str))
    if path.exists():
        for name, value in read_json(path, "").items():
            if record.get(name) != value:
                option = f"--{name.replace('_', '-')}"
                raise InputError(
                    f"--output {settings.output}: its comparison has {option} {value}, now it is {record.get(name)}; "
                    "go on with the same options, or choose another folder"
                )
        return
    if settings.output.exists() and (not settings.output.is_dir() or any(settings.output.iterdir())):
        raise InputError(f"--output {settings.output}: exists and is no comparison; choose another folder")
    (settings.output / "rows").mkdir(parents=True, exist_ok=True)
    write_json(path, record)


def row_file(settings: CompareSettings, name: str, seed: int) -> Path:
    return settings.output / "rows" / f"{name}-{seed}.json"


def curve_file(settings: CompareSettings, name: str, seed: int) -> Path:
    return settings.output / "rows" / f"{name}-{seed}.curve.json"


def grow_missing(settings: CompareSettings) -> dict[tuple[str, int], InputError]:
    """Grows what is neither measured nor there; returns why some variants cannot be grown."""
    missing = []
    for variant, seed, way in ways(settings, settings.output / "models"):
        trained = settings.train_data is None or all(
            curve_file(settings, variant.name, s).exists() for s in trained_seeds(settings, variant, seed)
        )
        measured = row_file(settings, variant.name, seed).exists()
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


def trained_seeds(settings: CompareSettings, variant: Variant, grown: int) -> Sequence[int]:
    """The training seeds that use the model grown with this seed."""
    return [grown] if find_method(variant.method).random else range(settings.seeds)


def measure(
    settings: CompareSettings, variant: Variant | None, failures: Mapping[tuple[str, int], InputError]
) -> Outcome:
    """A variant before training, or base: one perplexity for each seed that grows a model of its own."""
    name, method, place = (BASE, BASE, "-") if variant is None else (variant.name, variant.method, variant.place)
    rows = []
    for seed in range(1) if variant is None else grown_seeds(settings, variant):
        path = row_file(settings, name, seed)
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


def model_folder(settings: CompareSettings, variant: Variant | None, seed: int) -> Path:
    """Where the model is that a training seed starts from."""
    if variant is None:
        assert settings.model is not None
        return Path(settings.model)
    return settings.output / "models" / f"{variant.name}-{seed if find_method(variant.method).random else 0}"


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


def train_variant(settings: CompareSettings, variant: Variant | None, seed: int, outcome: Outcome) -> Outcome:
    """The outcome with the curve of one more seed, trained now or earlier."""
    if outcome.error is not None:
        return outcome
    name = BASE if variant is None else variant.name
    path = curve_file(settings, name, seed)
    try:
        if not path.exists():
            write_json(path, trained_curve(settings, variant, seed))
    except InputError as error:
        return replace(outcome, error=f"seed {seed}: {error}")
    curve = read_json(path, "")
    points = tuple(Point(*point) for point in curve["points"])
    earlier = outcome.curves if seed else ()
    return replace(
        outcome,
        curves=(*earlier, points),
        step_flops=curve["step_flops"],
        backward_depth=curve["backward_depth"],
    )


def trained_curve(settings: CompareSettings, variant: Variant | None, seed: int) -> dict[str, Any]:
    """Trains one variant, or goes on with it; its held-out losses with what was spent on them."""
    assert settings.train_tokens is not None
    assert settings.sequence_length is not None
    folder = model_folder(settings, variant, seed)
    every = parse_count("--eval-every", settings.eval_every) // (settings.batch_size * settings.sequence_length)
    output = settings.output / "runs" / f"{BASE if variant is None else variant.name}-{seed}"
    report = train(
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
    if report.stopped:
        raise KeyboardInterrupt
    shutil.rmtree(output / "checkpoints")
    flops = report.forward_flops + report.backward_flops
    return {
        "step_flops": flops,
        "backward_depth": report.backward_depth,
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


def describe(settings: CompareSettings, outcomes: tuple[Outcome, ...], seconds: float) -> Comparison:
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
        seconds=seconds,
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
