"""The rows that a comparison asks for: base, and methods at places."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from lesa_jax.base.errors import InputError
from lesa_jax.comparison.settings import PUBLISHED, CompareSettings
from lesa_jax.planning.methods import METHODS, Method, Placement, Stacking, find_method


@dataclass(frozen=True)
class Variant:
    """What one row of a comparison is about.

    Attributes:
      method: that makes new layers; "base" for the original model, which has none.
      placement: that was asked for; None for the method's own.
      place: where new layers are; "-" for base.
      random: whether another seed grows another model.
      trains: which of its weights are trained, as --train of lesa_jax.train takes it.
      mask: share of the training in which its new layers are faded in.
      like: of a control that has no name of its own, the method whose control it is.
      copier: of such a control, the copying method that puts layers there; they are silenced.
      also: other names of this very model, trained the same way.
      control: name of the row with silenced copies at the same places, trained the same way.
    """

    method: str
    placement: Placement | None = None
    place: str = "-"
    random: bool = False
    trains: str = "new"
    mask: float = 0.0
    like: str | None = None
    copier: str | None = None
    also: tuple[str, ...] = ()
    control: str | None = None

    @property
    def name(self) -> str:
        """What its files are named by."""
        method = self.method if self.like is None else f"{self.method}-as-{self.like}"
        return method if self.placement is None else f"{method}-{self.placement}"

    def start(self, seed: int) -> int:
        """The seed that grows the model which training with `seed` starts from: one for all, unless it is random."""
        return seed if self.random else 0

    def starts(self, seeds: int) -> Sequence[int]:
        """The seeds that grow different models."""
        return range(seeds if self.random else 1)


BASE = Variant("base", trains="all")


def variants(settings: CompareSettings) -> tuple[Variant, ...]:
    """What is asked for, base first; a method that repeats the whole model stands at its own place only.

    Raises:
      InputError: an unknown method or placement, or none at all.
    """
    places = placements(settings)
    names = list(METHODS) if settings.methods == "all" else split(settings.methods)
    if not names:
        raise InputError(f"--methods is empty: name some of {', '.join(METHODS)}, or all")
    found = [BASE]
    for name in names:
        method = find_method(name)
        whole = method.placement in get_args(Stacking)
        for place in [None] if whole else places:
            found.append(variant(settings, method, place))
    return tuple(dict.fromkeys(found))


def variant(settings: CompareSettings, method: Method, place: Placement | None) -> Variant:
    """A method at a place, trained as the settings say, or as its paper does."""
    train = settings.training.train
    return Variant(
        method.name,
        place,
        place or method.placement,
        method.random,
        method.trains if train == PUBLISHED else train,
        method.mask if settings.trains else 0.0,
    )


def placements(settings: CompareSettings) -> list[Placement | None]:
    if settings.placements is None:
        return [None]
    known = {place: place for place in get_args(Placement)}
    asked = split(settings.placements)
    for place in asked:
        if place not in known:
            raise InputError(f"--placements {place}: known are {', '.join(known)}")
    return [known[place] for place in asked]


def split(words: str) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()]
