"""Where new layers go: the rules of `make_plan`.

`methods` says which rule each method uses, and what its layers start as.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from lesa_jax.base.errors import InputError
from lesa_jax.planning.methods import MEASURED, Method, Placement, find_method
from lesa_jax.planning.plan import Plan, Slot

LARGEST = 10_000  # layers: more is a slip of the finger
GrownStack = Literal["encoder", "decoder", "both"]


def make_plan(
    source_layers: int,
    method: Method | str = "lesa",
    layers: int | None = None,
    gaps: Sequence[int] | None = None,
    placement: Placement | None = None,
    every: int | None = None,
    period: int = 1,
    ranking: Sequence[int] | None = None,
) -> Plan:
    """The plan of a method for a model of `source_layers` layers.

    Args:
      source_layers: L, the layers that the model has.
      method: the method, or its name in `methods.METHODS`.
      layers: target depth; by default half as many again.
      gaps: the gaps to fill, instead of `layers` and `placement`; gap g lies between layers g and g + 1, and may be
        named once for each new layer there.
      placement: where the new layers go; by default the method's own.
      every: TLI's K, instead of `layers`: a new layer after each group of K.
      period: after how many layers their kinds repeat (`families.periods`), for placement "periods".
      ranking: the layers, those that matter least first, for placements "importance" and "influence".

    Raises:
      InputError: a method, a depth or a gap that there is not; a placement that nothing was measured for.
    """
    if isinstance(method, str):
        method = find_method(method)
    check_depth(source_layers, method)
    for option, value in (("--gaps", gaps), ("--placement", placement)):
        if value is not None:
            check_free_layout(method, option)
    if gaps is not None:
        if layers is not None or placement is not None:
            raise InputError("--gaps says where every new layer goes: leave out --layers and --placement")
        return insert(source_layers, check_gaps(source_layers, gaps))
    if every is not None:
        if not method.every or layers is not None or placement is not None:
            raise InputError("--every belongs to --method tli and tli_zero, without --layers and --placement")
        if not 1 <= every <= source_layers:
            raise InputError(f"--every {every}: a model of {source_layers} layers has groups of 1 to {source_layers}")
        return insert(source_layers, range(every - 1, source_layers, every))
    target = source_layers + max(1, source_layers // 2) if layers is None else layers
    if not source_layers < target <= LARGEST:
        wrong = f"the model has {source_layers} layers already; ask for more" if target < LARGEST else "too many"
        raise InputError(f"--layers {target}: {wrong}")
    stacking = method.stacking
    if stacking == "overlap":
        return stack_copies(source_layers, target)
    if stacking == "cycle":
        return repeat_layers(source_layers, [j % source_layers for j in range(target)])
    if stacking == "repeat":
        return repeat_layers(source_layers, [j * source_layers // target for j in range(target)])
    where = placement or method.placement
    if where == "periods":
        return repeat_periods(source_layers, target - source_layers, period, method.after_last)
    if where in MEASURED and ranking is None:
        raise InputError(f"--placement {where}: is measured on a text; name one with --placement-text")
    after_last = method.after_last and where == "even"
    count = target - source_layers
    if method.every and where == "even" and count <= source_layers:
        step = source_layers // count
        if source_layers // step == count:
            return insert(source_layers, range(step - 1, source_layers, step))
    if source_layers - 1 + after_last == 0:
        raise InputError(
            f"--method {method.name}: a model of one layer has no gap; use --method llama_pro or duplicate"
        )
    return insert(source_layers, place(source_layers, count, where, after_last, ranking or ()))


def plan_stacks(depths: Sequence[int], grown: GrownStack | None, plan_of: Callable[[int], Plan]) -> Plan:
    """The plan of a model with one stack of layers, or with an encoder's and a decoder's.

    Args:
      depths: of the stacks.
      grown: which of two is to grow; None: both.
      plan_of: makes the plan of a stack of so many layers.

    Raises:
      InputError: a stack is named though there is only one.
    """
    if len(depths) == 1:
        if grown is not None:
            raise InputError(f"--stack {grown}: the model has no encoder, only one stack of layers; leave it out")
        return plan_of(depths[0])
    encoder, decoder = (
        plan_of(depth) if grown in (None, "both", side) else insert(depth, [])
        for depth, side in zip(depths, ("encoder", "decoder"), strict=True)
    )
    return replace(decoder, encoder=encoder)


def check_depth(source_layers: int, method: Method) -> None:
    """Refuses a stack of fewer layers than the method learns from."""
    least = method.start.least_layers
    if source_layers < least:
        raise InputError(
            f"--method {method.name} needs at least {least} layers to learn from, the model has {source_layers}"
        )


def check_free_layout(method: Method, option: str) -> None:
    """Refuses an option that says where new layers go to a method that is a rule of a whole plan."""
    if method.stacking:
        raise InputError(f"--method {method.name} repeats the model as a whole and has no {option}; use --layers")


def check_gaps(source_layers: int, gaps: Sequence[int], given: str = "--gaps") -> tuple[int, ...]:
    """The gaps in ascending order, which must be those of the model; `given` says by what the user named them."""
    if not gaps:
        raise InputError(f"{given} is empty: name at least one gap, as in --gaps 3,5,7 or --gaps 15-30")
    last = source_layers - 2
    for gap in gaps:
        if not 0 <= gap <= last:
            nearest = f"; the nearest is {min(max(gap, 0), last)}" if last >= 0 else ""
            raise InputError(f"{given}: no gap {gap}; a model of {source_layers} layers has 0-{last}{nearest}")
    return tuple(sorted(gaps))


def place(
    source_layers: int, count: int, placement: str, after_last: bool, ranking: Sequence[int] = ()
) -> tuple[int, ...]:
    """The gaps that `count` new layers fill, in ascending order; more layers than gaps go round and round.

    "even" with `after_last` is LLaMA Pro's rule: one after every L/count layers, the last one above the last layer
    (32 -> 40: new layers 4, 9, .., 39). Without it, the gaps are spread symmetrically over the L - 1 that there are.
    Counts that do not divide are spread as evenly as they go. "ends" fills from both ends, the top first. "importance"
    and "influence" take the gaps above the first layers of `ranking`; none is above the last layer, for any method.
    """
    gaps = source_layers - 1
    rounds, rest = divmod(count, gaps + after_last)
    full = list(range(gaps + after_last)) * rounds
    match placement:
        case "even" if after_last:
            chosen = [(i + 1) * source_layers // rest - 1 for i in range(rest)]
        case "even":
            chosen = [(2 * i + 1) * gaps // (2 * rest) for i in range(rest)]
        case "top":
            chosen = range(gaps - rest, gaps)
        case "middle":
            chosen = range((gaps - rest + 1) // 2, (gaps - rest + 1) // 2 + rest)
        case "bottom":
            chosen = range(rest)
        case "importance" | "influence":
            chosen = [layer for layer in ranking if layer < gaps][:rest]
        case "ends":
            chosen = [*range(rest // 2), *range(gaps - (rest + 1) // 2, gaps)]
        case _:
            raise ValueError(f"unknown placement {placement}")
    return tuple(sorted([*full, *chosen]))


def insert(source_layers: int, gaps: Sequence[int]) -> Plan:
    """Original layers with a new one after layer g for each g in `gaps`."""
    slots: list[Slot] = []
    for layer in range(source_layers):
        slots += [Slot(layer), *[Slot(layer, new=True)] * list(gaps).count(layer)]
    return Plan(source_layers, tuple(slots))


def repeat_periods(source_layers: int, count: int, period: int, after_last: bool) -> Plan:
    """New layers in whole periods, each above the originals that it is made of, spread as evenly as they go.

    So every original keeps its place in a pattern that repeats after `period` layers. What is left over at the top of
    the original, less than a period, stays at the top. Without `after_last` the highest whole period is not repeated:
    its last layer may have no neighbour above.

    Raises:
      InputError: a count that is no multiple of the period, or a model without a period to repeat.
    """
    periods, (copies, rest) = source_layers // period, divmod(count, period)
    if periods - 1 + after_last <= 0:
        raise InputError(
            f"--placement periods: the {source_layers} layers have no whole period to repeat; leave it out"
        )
    if rest:
        nearest = source_layers + period * max(1, round(count / period))
        raise InputError(
            f"--placement periods: {count} new layers are not a multiple of the {period} after which this model's "
            f"kinds of layers repeat; the nearest is --layers {nearest}"
        )
    above = place(periods, copies, "even", after_last)
    order: list[int] = []
    for number in range(periods):
        order += [*range(number * period, (number + 1) * period)] * (1 + above.count(number))
    return repeat_layers(source_layers, [*order, *range(periods * period, source_layers)])


def repeat_layers(source_layers: int, order: Sequence[int]) -> Plan:
    """The layers in this order; where an original stands for the second time it is new."""
    seen: set[int] = set()
    slots = []
    for layer in order:
        slots.append(Slot(layer, new=layer in seen))
        seen.add(layer)
    return Plan(source_layers, tuple(slots))


def stack_copies(source_layers: int, target: int) -> Plan:
    """SOLAR depth up-scaling: layers[0 : n-m] + layers[m : n], so 32 -> 48 is 0..23, 8..31 (arXiv 2312.15166).

    Layers that stand twice are new in the second copy. An odd target gives the first copy one layer more.
    """
    first, second = (target + 1) // 2, target // 2
    if first > source_layers:
        raise InputError(f"--layers {target}: two copies of {source_layers} layers make at most {2 * source_layers}")
    # What the first copy holds is the original there; in the second copy only the layers that the first one lacks are.
    return repeat_layers(source_layers, [*range(first), *range(source_layers - second, source_layers)])
