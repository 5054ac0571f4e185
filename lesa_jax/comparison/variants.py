"""The rows that a comparison asks for: methods at places, and how each is grown."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from lesa_jax.base.errors import InputError
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.planning.methods import METHODS, Placement, Stacking, find_method

BASE = "base"


@dataclass(frozen=True)
class Variant:
    """One row of the comparison: a method at a place. `placement` is None for the method's own."""

    method: str
    placement: Placement | None

    @property
    def name(self) -> str:
        return self.method if self.placement is None else f"{self.method}-{self.placement}"

    @property
    def place(self) -> str:
        return self.placement or find_method(self.method).placement


def variants(settings: CompareSettings) -> list[Variant]:
    """The rows after base; a method that repeats the whole model stands at its own place only.

    Raises:
      InputError: an unknown method or placement, or none at all.
    """
    known = list(get_args(Placement))
    places = [None] if settings.placements is None else split(settings.placements)
    for place in places:
        if place is not None and place not in known:
            raise InputError(f"--placements {place}: known are {', '.join(known)}")
    names = list(METHODS) if settings.methods == "all" else split(settings.methods)
    if not names:
        raise InputError(f"--methods is empty: name some of {', '.join(METHODS)}, or all")
    found: dict[Variant, None] = {}
    for name in names:
        whole = find_method(name).placement in get_args(Stacking)
        for place in [None] if whole else places:
            found[Variant(name, place)] = None  # pyright: ignore[reportArgumentType] (checked above)
    return list(found)


def split(words: str) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()]


def name_of(variant: Variant | None) -> str:
    """What a row's files are named by; None is base."""
    return BASE if variant is None else variant.name


def model_name(variant: Variant, seed: int) -> str:
    """Folder of the model that training with `seed` starts from: the same one for all seeds, or one for each."""
    return f"{variant.name}-{seed if find_method(variant.method).random else 0}"


def grown_seeds(settings: CompareSettings, variant: Variant) -> range:
    """Seeds that grow different models."""
    return range(settings.seeds if find_method(variant.method).random else 1)


def ways(settings: CompareSettings, folder: Path) -> Iterator[tuple[Variant, int, ExpandSettings]]:
    """How each variant is grown, for each of its seeds, into a folder of its own in `folder`."""
    for variant in variants(settings):
        for seed in grown_seeds(settings, variant):
            way = ExpandSettings(
                model=settings.model,
                output=folder / model_name(variant, seed),
                method=variant.method,
                layers=settings.layers,
                placement=variant.placement,
            )
            yield variant, seed, replace(way, seed=seed) if find_method(variant.method).random else way
