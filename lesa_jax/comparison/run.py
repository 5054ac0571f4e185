"""Growth methods side by side on one model: `python -m lesa_jax.compare --model DIR --text FILE --output DIR`.

All variants are grown together, so that every weight is read, taken apart and learned once; then each is measured, and
with --train-data trained on the same batches. The report is made from what lies finished in the output folder, so that
several processes may work on one comparison, each on a device of its own.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json, read_text, write_json
from lesa_jax.base.units import parse_count
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.comparison.folder import START_LOCK, curve_file, lock_file, make_output, row_file, start, turn
from lesa_jax.comparison.measure import measure, trained_curve
from lesa_jax.comparison.report import write_report
from lesa_jax.comparison.result import Comparison, Outcome, Point
from lesa_jax.comparison.settings import CompareSettings, check_settings
from lesa_jax.comparison.variants import Variant, name_of, variants, ways
from lesa_jax.evaluation.protocol import row_length
from lesa_jax.growth.run import grow
from lesa_jax.models.config import ModelConfig
from lesa_jax.planning.methods import find_method
from lesa_jax.planning.record import FILE as GROWTH_FILE
from lesa_jax.planning.record import PACKAGES


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
    if settings.training.train_data is not None:
        train_missing(settings, outcomes)
    if not settings.keep_models:
        remove_models(settings)
    return report(settings, outcomes)


def grow_missing(settings: CompareSettings) -> dict[tuple[str, int], InputError]:
    """Grows what is neither measured nor there; returns why some variants cannot be grown."""
    missing = []
    for variant, seed, way in ways(settings, settings.output / "models"):
        trained = settings.training.train_data is None or all(
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
    curves = [read_json(path, "") for path in paths if settings.training.train_data is not None and path.exists()]
    if outcome.error is not None or not curves:
        return outcome
    return replace(
        outcome,
        curves=tuple(tuple(Point(*point) for point in curve["points"]) for curve in curves),
        step_flops=curves[0]["step_flops"],
        backward_depth=curves[0]["backward_depth"],
    )


def describe(settings: CompareSettings, outcomes: tuple[Outcome, ...]) -> Comparison:
    training = settings.training
    tokens = None if training.train_tokens is None else parse_count("--train-tokens", training.train_tokens)
    trained = {"new": "the new layers", "new+norms": "the new layers and all norms", "all": "everything"}
    assert settings.model is not None
    assert settings.sequence_length is not None
    return Comparison(
        model=Path(settings.model).name,
        text=str(settings.text.name if settings.text else ""),
        protocol=settings.ppl_protocol,
        sequence_length=settings.sequence_length,
        train_data=training.train_data and Path(training.train_data).name,
        train_tokens=tokens,
        trained=None if tokens is None else f"{trained.get(training.train, training.train)}; of base everything",
        seeds=tuple(range(settings.seeds)),
        outcomes=outcomes,
        command=" ".join(["python -m lesa_jax.compare", *sys.argv[1:]]),
        versions={name: version(name) for name in PACKAGES},
    )
