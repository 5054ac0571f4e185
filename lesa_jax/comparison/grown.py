"""The grown models of a comparison, which are there while something has to be measured or trained from them."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import partial, read_json
from lesa_jax.base.folders import claim, foreign, remove_leftover, remove_own
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.comparison.folder import COMPARISON, MODELS, ROWS, model_folder
from lesa_jax.comparison.job import CompareJob
from lesa_jax.comparison.kept import is_from, note, origin, remove_if_empty, write
from lesa_jax.comparison.measure import kept_curve, kept_row
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import Variant
from lesa_jax.families.stacks import count_stacks
from lesa_jax.growth.run import grow
from lesa_jax.growth.settings import ExpandSettings, recorded_settings
from lesa_jax.planning.methods import MEASURED, find_method
from lesa_jax.planning.record import read_growth

OVER = "over"  # of a model's note: it is no longer needed


def grow_missing(job: CompareJob) -> dict[Path, InputError]:
    """Grows what is neither measured nor there, all together; returns why some cannot be grown, by folder."""
    wanted = [(variant, seed) for variant, seed in models(job) if is_missing(job.settings, variant, seed)]
    missing = [expand_settings(job.settings, variant, seed) for variant, seed in wanted]
    for (variant, seed), expand in zip(wanted, missing, strict=True):
        if foreign(expand.output) is None:  # otherwise growing says what is in its way
            remove_own(expand.output)
        write(note(expand.output), origin(job.settings, variant, seed), {OVER: False})
    outcomes = grow(missing) if missing else []
    return {
        expand.output: outcome
        for expand, outcome in zip(missing, outcomes, strict=True)
        if isinstance(outcome, InputError)
    }


def give_up_models(job: CompareJob) -> None:
    """Says of the grown checkpoints that this comparison needs them no longer; another process here still may."""
    for variant, seed in models(job):
        folder, made_from = model_folder(job.settings, variant, seed), origin(job.settings, variant, seed)
        if is_from(folder, made_from):
            write(note(folder), made_from, {OVER: True})


def tidy(output: Path) -> None:
    """Removes what this program wrote and nobody needs: models that are over, and what killed processes left.

    No other process may be at this comparison.
    """
    for noted in (output / ROWS).glob(f"*.{MODELS}.json"):
        folder = output / MODELS / noted.name.removesuffix(f".{MODELS}.json")
        over = is_over(noted)
        if not folder.parent.is_dir():
            continue
        with suppress(InputError), claim(folder):
            remove_leftover(partial(folder))
            if over:
                remove_own(folder)
        if over and not folder.exists():
            noted.unlink()
    for unfinished in (output / ROWS).glob(".*.json.partial"):
        unfinished.unlink()
    remove_if_empty(output / MODELS)


def is_over(noted: Path) -> bool:
    try:
        return read_json(noted, "").get(OVER) is True
    except InputError:  # damaged: its model is grown again when it is asked for
        return True


def models(job: CompareJob) -> Iterator[tuple[Variant, int]]:
    """What is grown: variants, each for the seeds that make a difference."""
    for variant in job.variants:
        if not variant.is_original:
            for seed in variant.starts(job.settings.seeds):
                yield variant, seed


def is_missing(settings: CompareSettings, variant: Variant, start: int) -> bool:
    """Whether a model is not there, but is yet to be measured, or trained with any seed that starts from it."""
    if is_there(settings, variant, start):
        return False
    seeds = [seed for seed in range(settings.seeds) if variant.start(seed) == start]
    trained = not settings.trains or all(kept_curve(settings, variant, seed) for seed in seeds)
    return not (trained and kept_row(settings, variant, start))


def is_there(settings: CompareSettings, variant: Variant, seed: int) -> bool:
    """Whether a model is there that was grown from what is compared now, and is as it was written."""
    wanted = expand_settings(settings, variant, seed)
    source = read_json(settings.output / COMPARISON.file, "it was there before")["made_of"]
    if not is_from(wanted.output, origin(settings, variant, seed)) or foreign(wanted.output) is not None:
        return False
    try:
        growth = read_growth(wanted.output, *count_stacks(open_checkpoint(wanted.output).config)[::-1])
        same_source = source["model"].items() >= growth.source["sha256"].items()
    except (InputError, KeyError, TypeError, AttributeError, ValueError):
        return False
    return same_source and growth.settings == recorded_settings(wanted, find_method(wanted.method))


def expand_settings(settings: CompareSettings, variant: Variant, seed: int) -> ExpandSettings:
    return ExpandSettings(
        model=settings.model,
        output=model_folder(settings, variant, seed),
        method=variant.copier or variant.method,
        layers=settings.layers,
        stack=settings.stack,
        placement=variant.placement,
        placement_text=(settings.training.retain_text or settings.text) if variant.placement in MEASURED else None,
        seed=seed,
        output_scale=0.0 if variant.copier else None,
        overwrite=True,  # what is there was made from something else
    )
