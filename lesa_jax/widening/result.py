"""What a widening did, as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lesa_jax.reports.facts import Fact, Facts


@dataclass(frozen=True, repr=False)
class WidenResult(Facts):
    """The outcome of one widening.

    Attributes:
      output: the folder written.
      method, factor: by which, and how many times as wide.
      sizes: what became larger, before and after, by the names of `families.model.ModelConfig`.
      parameters: before and after.
      nbytes: of all weight files.
      notes: what is to be known of the output, one line each.
      seconds: on the clock.
    """

    output: Path
    method: str
    factor: int
    sizes: Mapping[str, tuple[int, int]]
    parameters: tuple[int, int]
    nbytes: int
    notes: tuple[str, ...]
    seconds: float

    @property
    def named(self) -> Mapping[str, tuple[int, int]]:
        """The sizes as one speaks of them."""
        return {name.replace("num_", "").replace("_", " "): size for name, size in self.sizes.items()}

    @property
    def facts(self) -> tuple[Fact, ...]:
        return (
            ("method", self.method),
            ("width", f"{self.factor}x"),
            ("parameters", "{:,} -> {:,}".format(*self.parameters)),
            *((name, "{:,} -> {:,}".format(*size)) for name, size in self.named.items()),
            ("output", str(self.output)),
            *(("note", note) for note in self.notes),
            ("seconds", f"{self.seconds:.1f}"),
        )
