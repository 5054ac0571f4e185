"""What is to be known of a row beside what was measured: names, control, what is trained of it, at which rate."""

from collections.abc import Sequence
from dataclasses import replace

from lesa_jax.comparison.rates import known_rate, short_runs
from lesa_jax.comparison.result import Outcome
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import BASE, Variant
from lesa_jax.planning.methods import METHODS

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
        published=published_words(variant),
        learning_rate=known_rate(settings, variant),
        sweep=short_runs(settings, variant),
    )


def trained_words(variant: Variant) -> str:
    words = TRAINED.get(variant.trains, variant.trains)
    return f"{words}; faded in over the first {100 * variant.mask:g} %" if variant.mask else words


def published_words(variant: Variant) -> str | None:
    """What the method's paper trains, where that is more than is trained here."""
    if variant == BASE or variant.like is not None:
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
    return f"{grown}; of base everything"
