"""What an expansion did and measured, as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lesa_jax.planning.plan import Plan


@dataclass(frozen=True)
class KindResult:
    """What was measured on one predicted kind of weight.

    Attributes:
      old_norm: mean Frobenius norm of the original matrices.
      new_norm: the same of the new layers' matrices.
      loss: the predictor's mean training loss in its last epoch; None for methods without one.
    """

    old_norm: float
    new_norm: float
    loss: float | None


@dataclass(frozen=True)
class ExpandResult:
    """The outcome of one expansion.

    Attributes:
      method: a name in `methods.METHODS`.
      output: the folder written.
      plan: which layers are old and which are new.
      parameters: before and after.
      new_parameters: those in new layers, the ones to train next.
      nbytes: of all weight files.
      perplexity: {"before": .., "after": ..}, or empty.
      kinds: what was predicted, by weight kind (`mlp.up_proj`); new layers that are copies have their source's norms.
      silenced: the weight kinds that are zero in the new layers.
      not_predicted: kinds of two and more dimensions that are no linear layers' matrices, taken over by --norm-source.
      function: whether old layers compute what they did, and how that is known; empty where nothing is promised.
      scales: of the new layers' outputs, if they were calibrated.
      losses: then, on the calibration text: of the "base", as "grown", and "calibrated".
      notes: what the method could not do with this family of models, one line each.
      seconds: wall-clock time by stage.
      peak_memory: largest resident size of this process so far, bytes.
      estimated_memory: what the prediction was expected to need besides the program itself, bytes.
      dry_run: whether nothing was written.
    """

    method: str
    output: Path
    plan: Plan
    parameters: tuple[int, int]
    new_parameters: int
    nbytes: int
    perplexity: Mapping[str, float]
    kinds: Mapping[str, KindResult]
    silenced: tuple[str, ...]
    not_predicted: tuple[str, ...]
    function: str
    scales: tuple[float, ...]
    losses: Mapping[str, float]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    peak_memory: int
    estimated_memory: int
    dry_run: bool
