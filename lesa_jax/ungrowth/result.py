"""What an ungrowth did, as data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lesa_jax.planning.plan import Plan
from lesa_jax.reports.facts import Fact, Facts


class Cut(NamedTuple):
    """What became of one stack of layers.

    Attributes:
      name: as one speaks of it, "encoder " or "decoder "; a decoder alone needs none.
      before, after: how many layers it had, and has.
      dropped: the numbers that those had that are gone.
    """

    name: str
    before: int
    after: int
    dropped: Sequence[int]


@dataclass(frozen=True, repr=False)
class UngrowResult(Facts):
    """The outcome of one ungrowth.

    Attributes:
      output: the folder written.
      cuts: what became of each stack that lost layers.
      plan: of what is left; without new layers if it is the original.
      parameters: before and after.
      nbytes: of all weight files.
      originals: whether the original layers are the source's, and how that is known.
      notes: what other programs may not understand of what is left, one line each.
      seconds: on the clock.
    """

    output: Path
    cuts: tuple[Cut, ...]
    plan: Plan
    parameters: tuple[int, int]
    nbytes: int
    originals: str
    notes: tuple[str, ...]
    seconds: float

    @property
    def facts(self) -> tuple[Fact, ...]:
        return (
            *((f"{cut.name}layers", f"{cut.before} -> {cut.after}") for cut in self.cuts),
            ("parameters", "{:,} -> {:,}".format(*self.parameters)),
            ("originals", self.originals),
            ("output", str(self.output)),
            *(("note", note) for note in self.notes),
            ("seconds", f"{self.seconds:.1f}"),
        )


def cuts_of(before: Plan, left: Plan, dropped: Sequence[Sequence[int]]) -> tuple[Cut, ...]:
    """What becomes of each stack of a plan that loses layers."""
    stacks = zip(before.named, left.stacks, dropped, strict=True)
    return tuple(Cut(name, stack.layers, rest.layers, gone) for (name, stack), rest, gone in stacks if gone)
