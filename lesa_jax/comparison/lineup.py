"""The rows of a comparison: what is asked for, every model once, and with training a control for each.

Where new layers are decides what a step costs and how much their gradients pass through, and so does what is trained:
what a method is worth it has over silenced copies at the same places, trained the same way.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple, get_args

from lesa_jax.base.errors import InputError
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import Variant, variant, variants
from lesa_jax.planning.methods import METHODS, Copy, Method, Placement, find_method
from lesa_jax.planning.placement import make_plan, plan_stacks
from lesa_jax.planning.plan import Plan

CONTROL = "identity"


class Original(NamedTuple):
    """What plans depend on: how many layers each stack has, and their order for placements that were measured."""

    depths: Sequence[int]
    rankings: Mapping[str, Sequence[int]]


def line_up(
    settings: CompareSettings,
    depths: Sequence[int],
    lora_rank: int | None = None,
    rankings: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> tuple[Variant, ...]:
    """All rows: base, what is asked for, and the controls that are not among it.

    Args:
      settings: of the comparison.
      depths: how many layers each stack of the original model has.
      lora_rank: of adapters, if they are to be a row.
      rankings: the layers, those that matter least first, for each placement that is measured.

    Raises:
      InputError: an unknown method or placement, or none at all.
    """
    original, found = Original(depths, rankings), variants(settings, lora_rank)
    rows: dict[Hashable, Variant] = {}
    for row in found:
        if row.is_original:
            continue
        model = model_of(settings, row, original)
        first = rows.get(model)
        rows[model] = row if first is None else replace(first, also=(*first.also, other_name(row, first)))
    if settings.trains:
        add_controls(settings, rows, original)
    return *(row for row in found if row.is_original), *rows.values()


def add_controls(settings: CompareSettings, rows: dict[Hashable, Variant], original: Original) -> None:
    """Tells every row which one is its control; adds those that are missing, if that is wanted."""
    for model, row in [*rows.items()]:
        control = control_of(settings, row, original)
        if control is not None:
            there = model_of(settings, control, original)
            if settings.training.controls:
                rows.setdefault(there, control)
            if there != model and there in rows:
                rows[model] = replace(row, control=rows[there].name)


def other_name(row: Variant, first: Variant) -> str:
    """What a row is called beside the one that has the same model."""
    return row.method if row.place == first.place else f"{row.method} ({row.place})"


def model_of(settings: CompareSettings, row: Variant, original: Original) -> Hashable:
    """The same for rows that differ by name only: one plan, one start, trained alike."""
    method = find_method(row.copier or row.method)
    plan = plan_of(settings, method, row.placement, original)
    if plan is None:
        return row
    trained = (row.trains, row.mask, row.optimizer, row.replay) if settings.trains else None
    norms = method.norm_source if method.start.computed else None
    scale = method.scale if row.copier is None else 0.0
    return plan, method.start, scale, norms, row.random, trained


def control_of(settings: CompareSettings, row: Variant, original: Original) -> Variant | None:
    """Silenced copies at the places of a row, trained as it is; None where no copying method puts layers there."""
    plan = plan_of(settings, find_method(row.method), row.placement, original)
    if plan is None:
        return None
    for copier in copiers(row):
        placement = placement_of(copier, row)
        if plan_of(settings, copier, placement, original) == plan:
            plain = replace(variant(settings, copier, placement), optimizer=row.optimizer, replay=row.replay)
            if copier.name == CONTROL and plain.trains == row.trains:
                return plain
            control = replace(plain, method=CONTROL, place=row.place, random=False, trains=row.trains, mask=0.0)
            return replace(control, like=row.method, copier=copier.name)
    return None


def copiers(row: Variant) -> Iterator[Method]:
    """Methods whose new layers are copies: those that put them where the row has them are likely first."""
    likely = METHODS[CONTROL], find_method(row.method)
    for method in dict.fromkeys([*likely, *METHODS.values()]):
        if method.start == Copy():
            yield method


def placement_of(copier: Method, row: Variant) -> Placement | None:
    """What brings a copying method to a row's place; None for its own place, and for a rule of a whole plan."""
    own = row.placement is None and copier.placement == row.place
    places = [] if own or copier.stacking else get_args(Placement)
    return next((place for place in places if place == row.place), None)


def plan_of(settings: CompareSettings, method: Method, placement: Placement | None, original: Original) -> Plan | None:
    """None where there is none; growing says why."""
    try:
        ranking = original.rankings.get(placement or "")

        def plan_of_stack(depth: int) -> Plan:
            return make_plan(depth, method, settings.layers, placement=placement, ranking=ranking)

        return plan_stacks(original.depths, settings.stack, plan_of_stack)
    except InputError:
        return None
