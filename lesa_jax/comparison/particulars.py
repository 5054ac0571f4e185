"""What is to be known of a row beside what was measured: names, control, what is trained of it, at which rate."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lesa_jax.comparison.public import data_parts
from lesa_jax.comparison.rates import known_rate, short_runs
from lesa_jax.comparison.result import Outcome
from lesa_jax.comparison.settings import CompareSettings, optimizers, replays
from lesa_jax.comparison.variants import Variant
from lesa_jax.planning.methods import METHODS
from lesa_jax.training.lora import rank_of

TRAINED = {"new": "new layers", "new+norms": "new layers and all norms", "all": "everything"}


def with_particulars(settings: CompareSettings, rows: Sequence[Variant], variant: Variant, outcome: Outcome) -> Outcome:
    """The outcome of one of the rows with all of that; what concerns training only if there is any."""
    outcome = replace(outcome, also=variant.also, like=variant.like)
    if not settings.trains:
        return outcome
    names = [row.name for row in rows]
    return replace(
        outcome,
        control=None if variant.control is None else names.index(variant.control),
        trained=trained_words(variant),
        optimizer=variant.optimizer if len(optimizers(settings.training)) > 1 else None,
        replay=variant.replay if len(replays(settings.training)) > 1 else None,
        published=published_words(variant),
        learning_rate=known_rate(settings, variant),
        sweep=short_runs(settings, variant),
    )


def trained_words(variant: Variant) -> str:
    if (rank := rank_of(variant.trains)) is not None:
        return f"adapters of rank {rank}"
    words = TRAINED.get(variant.trains, variant.trains)
    return f"{words}; faded in over the first {100 * variant.mask:g} %" if variant.mask else words


def published_words(variant: Variant) -> str | None:
    """What the method's paper trains, where that is more than is trained here."""
    if variant.is_original or variant.like is not None:
        return None
    more = METHODS[variant.method].trains == "all" and variant.trains != "all"
    return TRAINED["all"] if more else None


def scope_words(settings: CompareSettings) -> str:
    """What is trained in all rows, in a few words."""
    train = settings.training.train
    grown = {
        "new": "the new layers",
        "new+norms": "the new layers and all norms",
        "all": "everything",
        "published": "what each method's paper trains",
    }.get(train, train)
    scope = f"{grown}; of base everything"
    shares = [f"{100 * share:g} %" for share in replays(settings.training)]
    old = ", ".join(Path(part).name for part in data_parts(settings.training.replay_data))
    return f"{scope}; {' or '.join(shares)} of the rows replayed from {old}" if old else scope
