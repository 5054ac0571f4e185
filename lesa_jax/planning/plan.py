"""Growth is data: a plan says, for every layer of the deeper model, which original it is or which gap it fills.

Where the new layers go is decided here; `methods` says which rule each method uses, and what its layers start as.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Slot:
    """One layer of the grown model: original `layer`, or a new one; a copying method copies `layer`, or the one above.

    Where new layers fill gaps, `layer` and `layer + 1` are the neighbours; several new layers may share a gap.
    """

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

    def from_above(self) -> "Plan":
        """The same places; each new layer stands for the layer above it, if there is one, instead of the one below."""
        last = self.source_layers - 1
        slots = (replace(slot, layer=min(slot.layer + 1, last)) if slot.new else slot for slot in self.slots)
        return Plan(self.source_layers, tuple(slots))

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


def fractions(gaps: Sequence[int]) -> tuple[float, ...]:
    """Where each new layer lies between its neighbours: (i+1)/(n+1) for the i-th of the n in one gap, in (0, 1)."""
    gaps = list(gaps)
    return tuple((gaps[:i].count(gap) + 1) / (gaps.count(gap) + 1) for i, gap in enumerate(gaps))
