"""What a comparison measured, as data."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """One evaluation during training: what was spent until then, and the held-out loss in nats per token."""

    tokens: int
    flops: float
    seconds: float
    loss: float


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
      curves: one per seed, from 0 tokens on; empty if not trained. A base that was not trained may have one point.
      step_flops: operations per trained token, forward and backward; None if not trained or not known.
      backward_depth: layers that the backward pass goes through.
      error: why the row failed; everything measured may then be missing.
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


@dataclass(frozen=True)
class Comparison:
    """All that was measured.

    Attributes:
      model: the original model.
      text: held-out text that perplexities are measured on.
      protocol: "corpus" or "line" (`lesa_jax.evaluation.protocol`).
      sequence_length: tokens per window, or at most per line.
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
