"""The rows that a comparison asks for: base, and methods at places."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import listed
from lesa_jax.comparison.settings import PUBLISHED, CompareSettings, optimizers, replays
from lesa_jax.planning.methods import METHODS, Method, Placement, Stacking, find_method
from lesa_jax.training.lora import PREFIX
from lesa_jax.training.settings import OptimizerName

# Names of the rows that are of the original model, trained as a whole, and by adapters.
BASE, LORA = "base", "lora"
ORIGINALS = (BASE, LORA)


@dataclass(frozen=True)
class Variant:
    """What one row of a comparison is about.

    Attributes:
      method: that makes new layers; "base" for the original model, which has none.
      placement: that was asked for; None for the method's own.
      place: where new layers are; "-" for base.
      random: whether another seed grows another model.
      trains: which of its weights are trained, as --train of lesa_jax.train takes it.
      optimizer: by which they are.
      replay: share of the rows that it is trained on which are from the old text.
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
    optimizer: OptimizerName = "adamw"
    replay: float = 0.0
    mask: float = 0.0
    like: str | None = None
    copier: str | None = None
    also: tuple[str, ...] = ()
    control: str | None = None

    @property
    def name(self) -> str:
        """What its files are named by."""
        method = self.method if self.like is None else f"{self.method}-as-{self.like}"
        placed = method if self.placement is None else f"{method}-{self.placement}"
        trained = placed if self.optimizer == "adamw" else f"{placed}-by-{self.optimizer}"
        return f"{trained}-replay-{self.replay}" if self.replay else trained

    @property
    def is_original(self) -> bool:
        """Whether it is of the original model, which has no new layers."""
        return self.method in ORIGINALS

    def start(self, seed: int) -> int:
        """The seed that grows the model which training with `seed` starts from: one for all, unless it is random."""
        return seed if self.random else 0

    def starts(self, seeds: int) -> Sequence[int]:
        """The seeds that grow different models."""
        return range(seeds if self.random else 1)


def variants(settings: CompareSettings, lora_rank: int | None = None) -> tuple[Variant, ...]:
    """What is asked for by every optimiser and with every share of replay, base first.

    A method that repeats the whole model has one place.

    Args:
      settings: of the comparison.
      lora_rank: of adapters, if they are to be a row.

    Raises:
      InputError: an unknown method or placement, or none at all.
    """
    places = placements(settings)
    names = list(METHODS) if settings.methods == "all" else listed(settings.methods)
    if not names:
        raise InputError(f"--methods is empty: name some of {', '.join(METHODS)}, or all")
    found = []
    for name in names:
        method = find_method(name)
        whole = method.placement in get_args(Stacking)
        for place in [None] if whole else places:
            found.append(variant(settings, method, place))
    ways = [*product(optimizers(settings.training), replays(settings.training))]
    originals = [base_by(*ways[0])]
    if lora_rank is not None:
        originals.append(Variant(LORA, trains=f"{PREFIX}{lora_rank}"))
    rows = (*originals, *dict.fromkeys(found))
    return tuple(replace(row, optimizer=rule, replay=share) for row in rows for rule, share in ways)


def base_by(optimizer: OptimizerName, replay: float = 0.0) -> Variant:
    """The original model, all of it trained."""
    return Variant(BASE, trains="all", optimizer=optimizer, replay=replay)


def variant(settings: CompareSettings, method: Method, place: Placement | None) -> Variant:
    """A method at a place, trained as the settings say, or as its paper does."""
    train = settings.training.train
    return Variant(
        method.name,
        place,
        place or method.placement,
        method.random,
        method.trains if train == PUBLISHED else train,
        mask=method.mask if settings.trains else 0.0,
    )


def placements(settings: CompareSettings) -> list[Placement | None]:
    if settings.placements is None:
        return [None]
    known = {place: place for place in get_args(Placement)}
    asked = listed(settings.placements)
    for place in asked:
        if place not in known:
            raise InputError(f"--placements {place}: known are {', '.join(known)}")
    return [known[place] for place in asked]
