"""Growth is data: a plan says, for every layer of the deeper model, which original it is or which gap it fills.

A published method is a preset: where the new layers go (placement), what they start as (initialiser), and whether what
they write into the residual stream is silenced (gate).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lesa_jax.errors import InputError

Placement = Literal["top", "even", "middle", "bottom"]
Method = Literal["lesa", "llama_pro", "solar", "duplicate"]


@dataclass(frozen=True)
class Slot:
    """One layer of the grown model: original `layer`, or a new layer whose neighbours are `layer` and `layer + 1`."""

    layer: int
    new: bool = False


@dataclass(frozen=True)
class Plan:
    """The layers of the grown model in order.

    Attributes:
      source_layers: how many layers the original has; each stands in exactly one slot that is not new, in order.
      slots: one for each layer of the grown model.
    """

    source_layers: int
    slots: tuple[Slot, ...]

    def __post_init__(self) -> None:
        kept = [slot.layer for slot in self.slots if not slot.new]
        if kept != list(range(self.source_layers)):
            raise ValueError(f"the originals of a plan must be 0..{self.source_layers - 1} in order, got {kept}")

    @property
    def layers(self) -> int:
        return len(self.slots)

    @property
    def new_layers(self) -> tuple[int, ...]:
        """Positions of the new layers in the grown model."""
        return tuple(position for position, slot in enumerate(self.slots) if slot.new)

    @property
    def old_layers(self) -> tuple[int, ...]:
        """Positions of the originals in the grown model."""
        return tuple(position for position, slot in enumerate(self.slots) if not slot.new)

    @property
    def gaps(self) -> tuple[int, ...]:
        """For each new layer, in order, the original below it."""
        return tuple(slot.layer for slot in self.slots if slot.new)

    def gather(self) -> tuple[int, ...]:
        """For each slot, its row in [originals; new layers] stacked in that order (see `splice`)."""
        new = iter(range(self.source_layers, self.layers))
        return tuple(next(new) if slot.new else slot.layer for slot in self.slots)

    def to_json(self) -> dict[str, Any]:
        slots = [{"layer": slot.layer, "new": True} if slot.new else {"layer": slot.layer} for slot in self.slots]
        return {"source_layers": self.source_layers, "slots": slots}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Plan":
        slots = tuple(Slot(int(slot["layer"]), bool(slot.get("new", False))) for slot in value["slots"])
        return Plan(int(value["source_layers"]), slots)

    def __str__(self) -> str:
        """`0-7 +7 8 +8 9 ...`: originals, and new layers with a plus and the layer below them."""
        words, i = [], 0
        while i < self.layers:
            j = i
            while j + 1 < self.layers and not self.slots[i].new and not self.slots[j + 1].new:
                j += 1
            slot = self.slots[i]
            words.append(
                f"+{slot.layer}" if slot.new else f"{slot.layer}-{self.slots[j].layer}" if j > i else f"{slot.layer}"
            )
            i = j + 1
        return " ".join(words)


@dataclass(frozen=True)
class Preset:
    """What makes a published method.

    Attributes:
      placement: where the new layers go unless told otherwise; "stacked" is SOLAR's overlapping copies.
      initialiser: what a new layer starts as.
      silent: whether everything the new layers write into the residual stream is zeroed.
      after_last: whether a layer may also be appended above the last original (it has no upper neighbour).
      source: where the method is defined.
    """

    placement: Literal["top", "even", "middle", "bottom", "stacked"]
    initialiser: Literal["lesa", "copy"]
    silent: bool
    after_last: bool
    source: str


PRESETS: Mapping[str, Preset] = {
    "lesa": Preset("top", "lesa", False, False, "arXiv 2502.13794"),
    "llama_pro": Preset("even", "copy", True, True, "arXiv 2401.02415"),
    "solar": Preset("stacked", "copy", False, False, "arXiv 2312.15166"),
    "duplicate": Preset("even", "copy", False, True, "in-place duplication, arXiv 2510.08008"),
}


def make_plan(
    source_layers: int,
    method: Method = "lesa",
    layers: int | None = None,
    gaps: Sequence[int] | None = None,
    placement: Placement | None = None,
) -> Plan:
    """The plan of a method for a model of `source_layers` layers.

    Args:
      source_layers: L, the layers that the model has.
      method: a key of PRESETS.
      layers: target depth; by default half as many again.
      gaps: the gaps to fill, instead of `layers` and `placement`; gap g lies between layers g and g + 1.
      placement: where the new layers go; by default the method's own.

    Raises:
      InputError: a depth or a gap that the model or the method does not have.
    """
    preset = PRESETS[method]
    if preset.initialiser == "lesa" and source_layers < 3:
        raise InputError(f"--method lesa needs at least 3 layers to learn from, the model has {source_layers}")
    if gaps is not None:
        if layers is not None or placement is not None:
            raise InputError("--gaps says where every new layer goes: leave out --layers and --placement")
        if preset.placement == "stacked":
            raise InputError(f"--method {method} stacks two copies of the model and has no --gaps; use --layers")
        return insert(source_layers, check_gaps(source_layers, gaps))
    target = source_layers + max(1, source_layers // 2) if layers is None else layers
    if target <= source_layers:
        raise InputError(f"--layers {target}: the model has {source_layers} layers already; ask for more")
    if preset.placement == "stacked":
        if placement is not None:
            raise InputError(f"--method {method} stacks two copies of the model and has no --placement")
        return stack_copies(source_layers, target)
    count = target - source_layers
    after_last = preset.after_last and (placement or preset.placement) == "even"
    room = source_layers - 1 + after_last
    if count > room:
        raise InputError(
            f"--layers {target}: {count} new layers but only {room} places (one a gap); at most {source_layers + room}"
        )
    return insert(source_layers, place(source_layers, count, placement or preset.placement, after_last))


def check_gaps(source_layers: int, gaps: Sequence[int]) -> tuple[int, ...]:
    if not gaps:
        raise InputError("--gaps is empty: name at least one gap, as in --gaps 3,5,7 or --gaps 15-30")
    for gap in gaps:
        if not 0 <= gap < source_layers - 1:
            raise InputError(f"--gaps: no gap {gap}; a model of {source_layers} layers has 0-{source_layers - 2}")
    if len(set(gaps)) != len(gaps):
        raise InputError("--gaps names a gap twice; at most one new layer fits in a gap")
    return tuple(sorted(gaps))


def place(source_layers: int, count: int, placement: str, after_last: bool) -> tuple[int, ...]:
    """The gaps that `count` new layers fill.

    "even" with `after_last` is LLaMA Pro's rule: one after every L/count layers, the last one above the last layer
    (32 -> 40: new layers 4, 9, .., 39). Without it, the gaps are spread symmetrically over the L - 1 that there are.
    Counts that do not divide are spread as evenly as they go.
    """
    gaps = source_layers - 1
    match placement:
        case "even" if after_last:
            return tuple((i + 1) * source_layers // count - 1 for i in range(count))
        case "even":
            return tuple((2 * i + 1) * gaps // (2 * count) for i in range(count))
        case "top":
            first = gaps - count
        case "middle":
            first = (gaps - count + 1) // 2
        case "bottom":
            first = 0
        case _:
            raise ValueError(f"unknown placement {placement}")
    return tuple(range(first, first + count))


def insert(source_layers: int, gaps: Sequence[int]) -> Plan:
    """Original layers with a new one after each layer in `gaps`."""
    filled = set(gaps)
    slots: list[Slot] = []
    for layer in range(source_layers):
        slots += [Slot(layer), Slot(layer, new=True)] if layer in filled else [Slot(layer)]
    return Plan(source_layers, tuple(slots))


def stack_copies(source_layers: int, target: int) -> Plan:
    """SOLAR depth up-scaling: layers[0 : n-m] + layers[m : n], so 32 -> 48 is 0..23, 8..31 (arXiv 2312.15166).

    Layers that stand twice are new in the second copy. An odd target gives the first copy one layer more.
    """
    first, second = (target + 1) // 2, target // 2
    if first > source_layers:
        raise InputError(f"--layers {target}: two copies of {source_layers} layers make at most {2 * source_layers}")
    order = [*range(first), *range(source_layers - second, source_layers)]
    # What the first copy holds is the original there; in the second copy only the layers that the first one lacks are.
    return Plan(source_layers, tuple(Slot(i, new=n >= first and i < first) for n, i in enumerate(order)))
