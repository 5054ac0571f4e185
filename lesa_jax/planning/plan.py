"""Growth is data: a plan says, for every layer of the deeper model, which original it is or which gap it fills.

Where the new layers go is decided here; `methods` says which rule each method uses, and what its layers start as.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lesa_jax.families.entries import is_integer


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
      encoder: of an encoder-decoder: the plan of its encoder; the rest is that of its decoder.
    """

    source_layers: int
    slots: tuple[Slot, ...]
    encoder: "Plan | None" = None

    def __post_init__(self) -> None:
        kept = [slot.layer for slot in self.slots if not slot.new]
        if len(kept) != self.source_layers or kept != list(range(self.source_layers)):
            raise ValueError(f"the originals of a plan must be 0..{self.source_layers - 1} in order, got {kept}")

    @property
    def stacks(self) -> "tuple[Plan, ...]":
        """Of each stack of layers: the encoder's, if there is one, and the decoder's."""
        return (self,) if self.encoder is None else (self.encoder, self)

    @property
    def named(self) -> "tuple[tuple[str, Plan], ...]":
        """The stacks as one speaks of them; a decoder alone needs no name."""
        return (("", self),) if self.encoder is None else (("encoder ", self.encoder), ("decoder ", self))

    @property
    def is_original(self) -> bool:
        """Whether no stack has a new layer."""
        return not any(plan.new_layers for plan in self.stacks)

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
    def below(self) -> tuple[int, ...]:
        """For each new layer, in order, the highest original below it in the grown model; -1 if there is none."""
        highest, below = -1, []
        for slot in self.slots:
            if slot.new:
                below.append(highest)
            else:
                highest = slot.layer
        return tuple(below)

    @property
    def gaps(self) -> tuple[int, ...]:
        """For each new layer, in order, the original that it names: where it fills a gap, the one right below it."""
        return tuple(slot.layer for slot in self.slots if slot.new)

    def gather(self) -> tuple[int, ...]:
        """For each slot, its row in [originals; new layers] stacked in that order (see `splice`)."""
        new = iter(range(self.source_layers, self.layers))
        return tuple(next(new) if slot.new else slot.layer for slot in self.slots)

    def from_above(self) -> "Plan":
        """The same places; each new layer stands for the layer above it, if there is one, instead of the one below."""
        last = self.source_layers - 1
        slots = (replace(slot, layer=min(slot.layer + 1, last)) if slot.new else slot for slot in self.slots)
        return Plan(self.source_layers, tuple(slots), self.encoder and self.encoder.from_above())

    def without(self, dropped: Sequence[Collection[int]]) -> "Plan":
        """What is left when new layers go, whose positions are given for each of the `stacks`."""
        *encoder, decoder = (
            replace(stack, slots=tuple(slot for position, slot in enumerate(stack.slots) if position not in positions))
            for stack, positions in zip(self.stacks, dropped, strict=True)
        )
        return replace(decoder, encoder=encoder[0] if encoder else None)

    def to_json(self) -> dict[str, Any]:
        slots = [{"layer": slot.layer, "new": True} if slot.new else {"layer": slot.layer} for slot in self.slots]
        encoder = {} if self.encoder is None else {"encoder": self.encoder.to_json()}
        return {"source_layers": self.source_layers, "slots": slots} | encoder

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Plan":
        """The plan that `to_json` gave.

        Raises:
          ValueError: what of it is damaged; its originals must stand in order and its new layers name an original.
        """
        source, listed, encoder = (value.get(key) for key in ("source_layers", "slots", "encoder"))
        if not is_integer(source) or not isinstance(listed, list):
            raise ValueError("its plan has no source_layers or no slots")
        slots = []
        for position, slot in enumerate(listed):
            layer, new = (slot.get("layer"), slot.get("new", False)) if isinstance(slot, dict) else (None, None)
            if not is_integer(layer) or not 0 <= layer < source or not isinstance(new, bool):
                raise ValueError(f"slot {position} of its plan is no layer of 0-{source - 1}, old or new")
            slots.append(Slot(layer, new))
        if encoder is not None and not isinstance(encoder, dict):
            raise ValueError("the encoder in its plan is none")
        return Plan(source, tuple(slots), None if encoder is None else Plan.from_json(encoder))

    def __str__(self) -> str:
        """`0-7 +7 8 +8 9 ...`: originals, and new layers with a plus and the layer below them."""
        return "; ".join(f"{name}{plan._in_words()}" for name, plan in self.named)

    def _in_words(self) -> str:
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
