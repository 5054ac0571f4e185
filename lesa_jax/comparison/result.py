"""What a comparison measured, as data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from lesa_jax.evaluation.perplexity import Window
from lesa_jax.reports.facts import Fact, Facts
from lesa_jax.reports.numbers import number
from lesa_jax.tasks.headline import TaskScore


@dataclass(frozen=True)
class Point:
    """One evaluation during training: what was spent until then, and the held-out loss in nats per token.

    `retained` is the loss on the text of what the model knew before; None without one.
    """

    tokens: int
    flops: float
    seconds: float
    loss: float
    retained: float | None = None


@dataclass(frozen=True)
class ShortRun:
    """One run that tried a learning rate.

    Attributes:
      learning_rate: that it tried.
      loss: held-out, in nats per token, at its end; None if it diverged.
      tokens: that it trained on.
      seconds: on the clock, compilation and measuring included.
      step_flops: operations per trained token; None if it diverged.
      retained: as of a `Point`, at its end.
    """

    learning_rate: float
    loss: float | None
    tokens: int
    seconds: float
    step_flops: float | None
    retained: float | None = None


@dataclass(frozen=True)
class Outcome:
    """One row of the comparison.

    Attributes:
      method: name of the method; "base" for the original model.
      placement: where the new layers are ("top", "even", "3,5,7", "stacked"); "-" for base.
      layers: of the model.
      new_layers: positions of the new layers.
      parameters: of the model.
      new_parameters: those in new layers.
      initial: perplexity before training, one per seed; methods without randomness have one.
      curves: one per seed, from 0 tokens on, itself empty as long as that seed is not trained; none if nothing is. A
        base that was not trained may have one point.
      step_flops: operations per trained token, forward and backward; None if not trained or not known.
      backward_depth: layers that the backward pass goes through.
      error: why the row failed; everything measured may then be missing.
      also: other names of the same model, trained the same way.
      like: of a control that has no name of its own, the method whose control it is.
      control: position of the row with silenced copies at the same places, trained the same way; None without one.
      trained: which weights, in words; None if nothing is to be trained.
      optimizer: that does; None where all rows have the same.
      replay: share of the trained rows that are from the old text; None where all rows have the same.
      published: which weights its paper trains, in words, where those are others.
      learning_rate: at its peak; None as long as it is not known.
      sweep: the short runs that chose it.
      windows: of the held-out text at the end of each curve; empty where that is.
      scores: on the tasks, before training: for each perplexity in `initial`.
      trained_scores: after it: one for each curve, empty where that is.
    """

    method: str
    placement: str
    layers: int
    new_layers: tuple[int, ...]
    parameters: int
    new_parameters: int
    initial: tuple[float, ...] = ()
    curves: tuple[tuple[Point, ...], ...] = ()
    step_flops: float | None = None
    backward_depth: int | None = None
    error: str | None = None
    also: tuple[str, ...] = ()
    like: str | None = None
    control: int | None = None
    trained: str | None = None
    optimizer: str | None = None
    replay: float | None = None
    published: str | None = None
    learning_rate: float | None = None
    sweep: tuple[ShortRun, ...] = ()
    windows: tuple[tuple[Window, ...], ...] = ()
    scores: tuple[tuple[TaskScore, ...], ...] = ()
    trained_scores: tuple[tuple[TaskScore, ...], ...] = ()

    @property
    def title(self) -> str:
        """What its readers know it by, without its place."""
        method = self.method if self.like is None else f"{self.method} as {self.like}"
        names = " = ".join([method, *self.also])
        trained = names if self.optimizer is None else f"{names} by {self.optimizer}"
        return f"{trained}, {100 * self.replay:g} % replay" if self.replay else trained

    @property
    def told(self) -> str:
        """Its perplexity before training and, where it was trained, after; or why there is none."""
        if self.error is not None:
            return f"failed: {self.error}"
        ends = [curve[-1].loss for curve in self.curves if curve and curve[-1].tokens]
        measured = [fmean(self.initial)] if self.initial else []
        return " -> ".join(map(number, [*measured, *([math.exp(fmean(ends))] if ends else [])])) or "-"


@dataclass(frozen=True, repr=False)
class Comparison(Facts):
    """All that was measured.

    Attributes:
      model: the original model.
      text: held-out text that perplexities are measured on.
      protocol: "corpus" or "line" (`lesa_jax.evaluation.protocol`).
      sequence_length: tokens per window, or at most per line.
      retain_text: held-out text of what the model knew before; None without one.
      train_data: text that was trained on; None if nothing was trained.
      train_tokens: that each method was trained on.
      trained: which weights were trained, in words.
      seeds: all of them.
      outcomes: the rows; the first is base.
      command: that asks for this comparison.
      versions: of the programs, by name.
      stopped: whether a signal ended it before everything was trained.
    """

    model: str
    text: str
    protocol: str
    sequence_length: int
    train_data: str | None
    train_tokens: int | None
    trained: str | None
    seeds: tuple[int, ...]
    outcomes: tuple[Outcome, ...]
    command: str
    versions: Mapping[str, str]
    stopped: bool = False
    retain_text: str | None = None

    @property
    def facts(self) -> tuple[Fact, ...]:
        of_rows = "perplexity" if self.train_data is None else f"perplexity -> after {self.train_tokens:,} tokens"
        rows = ((f"{row.title}, {row.placement}".removesuffix(", -"), row.told) for row in self.outcomes)
        return (("model", of_rows), *rows)
