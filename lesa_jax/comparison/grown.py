"""The grown models of a comparison, which are there while something has to be measured or trained from them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from lesa_jax.base.errors import InputError
from lesa_jax.comparison.folder import MODELS, curve_file, model_folder, row_file
from lesa_jax.comparison.job import CompareJob
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import BASE, Variant
from lesa_jax.growth.run import grow
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.planning.record import FILE as GROWTH_FILE


def grow_missing(job: CompareJob) -> dict[Path, InputError]:
    """Grows what is neither measured nor there, all together; returns why some cannot be grown, by folder."""
    wanted = [(variant, seed) for variant, seed in models(job) if is_missing(job.settings, variant, seed)]
    missing = [expand_settings(job.settings, variant, seed) for variant, seed in wanted]
    outcomes = grow(missing) if missing else []
    return {
        expand.output: outcome
        for expand, outcome in zip(missing, outcomes, strict=True)
        if isinstance(outcome, InputError)
    }


def remove_models(job: CompareJob) -> None:
    """Removes the grown checkpoints, but none of another process that compares other methods here."""
    for variant, seed in models(job):
        shutil.rmtree(model_folder(job.settings, variant, seed), ignore_errors=True)
    folder = job.settings.output / MODELS
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def models(job: CompareJob) -> Iterator[tuple[Variant, int]]:
    """What is grown: variants, each for the seeds that make a difference."""
    for variant in job.variants:
        if variant != BASE:
            for seed in variant.starts(job.settings.seeds):
                yield variant, seed


def is_missing(settings: CompareSettings, variant: Variant, start: int) -> bool:
    """Whether a model is not there, but is yet to be measured, or trained with any seed that starts from it."""
    if (model_folder(settings, variant, start) / GROWTH_FILE).exists():
        return False
    seeds = [seed for seed in range(settings.seeds) if variant.start(seed) == start]
    trained = settings.training.train_data is None or all(
        curve_file(settings, variant, seed).exists() for seed in seeds
    )
    return not (trained and row_file(settings, variant, start).exists())


def expand_settings(settings: CompareSettings, variant: Variant, seed: int) -> ExpandSettings:
    return ExpandSettings(
        model=settings.model,
        output=model_folder(settings, variant, seed),
        method=variant.copier or variant.method,
        layers=settings.layers,
        placement=variant.placement,
        seed=seed,
        output_scale=0.0 if variant.copier else None,
    )
