"""Profiles with a given number of parameters: an end of the feed-forward curve moves until they fit."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from lesa_jax.base.errors import InputError
from lesa_jax.profiles.named import PROFILES, Profile, layer_sizes
from lesa_jax.profiles.sizes import Shape, count_parameters

TOLERANCE = 0.01  # of the budget
WIDEST = 16.0  # largest multiplier; published ones end at 4, and with more a model wants layers or hidden size instead
GRAIN = 1000  # a point that moves has three decimals


def fit(profile: Profile, shape: Shape, budget: int) -> Profile:
    """The profile with its wide end moved so that its model comes as near to the budget as it can.

    Attention stays. The wide end does not fall below the narrow one, so that a crown stays one. Where many layers step
    to their next multiple at once and the budget lies in that step, the narrow end gives way by hundredths until it
    does not. A profile that is as near already stays as it is.

    Args:
      profile: where to begin.
      shape: of the model, vocabulary included.
      budget: parameters of the whole model.

    Raises:
      InputError: nothing within `TOLERANCE` of the budget: it lies outside of what the wide end can do, or all layers
        step at once.
    """

    @cache
    def total(candidate: Profile) -> int:
        return count_parameters(shape, layer_sizes(candidate, shape))

    def miss(candidate: Profile) -> int:
        return abs(total(candidate) - budget)

    def nearest(start: Profile) -> Profile:
        grains = reach(start)
        # Parameters never fall where a point rises, for neither curves nor rounding do.
        place = bisect_left(grains, budget, key=lambda grain: total(widen(start, grain)))
        near = [widen(start, grains[i]) for i in (place - 1, place) if 0 <= i < len(grains)]
        return min([start, *near], key=miss)

    found = []
    for start in starts(profile):
        found.append(nearest(start))
        if miss(found[-1]) <= TOLERANCE * budget:
            return found[-1]
    smallest, largest = (total(widen(profile, reach(profile)[i])) for i in (0, -1))
    if smallest <= budget <= largest:
        raise InputError(
            f"--parameters {budget:,}: not reachable within {TOLERANCE:.0%}: {profile.name} comes no nearer than "
            f"{total(min(found, key=miss)):,}, as widths go in steps of --ffn-divisor {shape.ffn_divisor}; take a "
            "smaller one"
        )
    raise InputError(
        f"--parameters {budget:,}: not reachable: {profile.name} with {shape.layers} layers and hidden size "
        f"{shape.hidden_size} has {smallest:,} to {largest:,}; change --layers or --hidden-size"
    )


def starts(profile: Profile) -> Iterator[Profile]:
    """The profile, and its likes whose narrow end lies up to a tenth elsewhere, nearest first."""
    yield profile
    narrow = min(profile.ffn)
    for hundredths in range(1, 11):
        for moved in (narrow + hundredths / 100, narrow - hundredths / 100):
            if 0 < moved < max(profile.ffn):
                yield replace_point(profile, narrow, round(moved, 2))


def reach(profile: Profile) -> range:
    """Where the wide end can be, in `GRAIN`s: above all other points."""
    wide = max(profile.ffn)
    least = max((point for point in profile.ffn if point != wide), default=1 / GRAIN)
    return range(round(least * GRAIN), round(WIDEST * GRAIN) + 1)


def widen(profile: Profile, grain: int) -> Profile:
    return replace_point(profile, max(profile.ffn), grain / GRAIN)


def replace_point(profile: Profile, old: float, new: float) -> Profile:
    """The profile with the points that are `old` at `new`: both ends of a crown are one."""
    return replace(profile, ffn=tuple(new if point == old else point for point in profile.ffn))


def equal_budget(shape: Shape, budget: int | None = None) -> tuple[Profile, ...]:
    """All five profiles with the same number of parameters, each within `TOLERANCE`.

    Args:
      shape: of the models.
      budget: parameters; by default those of the isotropic profile as published, to which the others come.

    Raises:
      InputError: one of them does not reach it.
    """
    if budget is None:
        budget = count_parameters(shape, layer_sizes(PROFILES["isotropic"], shape))
    return tuple(fit(profile, shape, budget) for profile in PROFILES.values())
