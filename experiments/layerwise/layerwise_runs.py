"""The runs of the experiment on layers of different sizes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

PLAIN, SCALED = "plain", "scaled"
NORMS = {PLAIN: "random", SCALED: "norm-scaling"}  # as `lesa_jax.train --init` calls them
CLEAN, DEFECT = "clean", "defect"


@dataclass(frozen=True)
class Run:
    """One training run, from nothing.

    Attributes:
      profile: of the layers' sizes.
      norm: plain, or what layer l reads scaled by 1/sqrt(l).
      data: clean, or every second token zero.
      saturation: tokens a parameter.
      rate, seed: of the run.
    """

    profile: str
    norm: str
    data: str
    saturation: int
    rate: float
    seed: int

    @property
    def slug(self) -> str:
        return f"{self.profile}-{self.norm}-{self.data}-{self.saturation}-{self.rate:g}-{self.seed}"

    @property
    def group(self) -> tuple[str, int, str, str]:
        """What differs from others in rate and seed alone."""
        return self.data, self.saturation, self.norm, self.profile


@dataclass(frozen=True)
class Row(Run):
    """A finished run, on held-out text.

    Attributes:
      parameters: of the model.
      loss: nats a token, over all tokens as the data has them.
      text_loss: over those that are text: all of clean data, every second one of the other.
      accuracy: how often the likeliest token is the text's next one.
      beginning, end: the same in the first eighth and in the second half of the windows.
      frequent, rare: the same of the most and of the least frequent tokens, each a third of the text.
    """

    parameters: int
    loss: float
    text_loss: float
    accuracy: float
    beginning: float
    end: float
    frequent: float
    rare: float


def best(rows: Iterable[Row]) -> list[Row]:
    """Of rows that differ in rate and seed, those of the rate that is best for the first seed, which tries them all."""
    own = list(rows)
    chosen = min((row for row in own if row.seed == 0), key=lambda row: row.loss)
    return sorted((row for row in own if row.rate == chosen.rate), key=lambda row: row.seed)


def sweep(group: Run, rates: Sequence[float], seeds: int, done: Iterable[Row]) -> list[Run]:
    """What is to be run for a group, as far as one knows it: every rate with the first seed, and then, once the best
    rate is known, the others with that."""
    own = [row for row in done if row.group == group.group]
    first = [of(group, rate, 0) for rate in rates]
    if {run.rate for run in first} - {row.rate for row in own if row.seed == 0}:
        return first
    return first + [of(group, best(own)[0].rate, seed) for seed in range(1, seeds)]


def of(group: Run, rate: float, seed: int) -> Run:
    return Run(group.profile, group.norm, group.data, group.saturation, rate, seed)


def differences(rows: Sequence[Row], reference: Sequence[Row]) -> np.ndarray:
    """Losses on text over those of the reference with the same seed, which have seen the same batches; [seeds]."""
    losses = {row.seed: row.text_loss for row in reference}
    return np.array([row.text_loss - losses[row.seed] for row in rows if row.seed in losses])
