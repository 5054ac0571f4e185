"""What an expansion did and measured, as data."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from lesa_jax.planning.plan import Plan
from lesa_jax.reports.facts import Fact, Facts, change


class Learned(NamedTuple):
    """How well LESA's predictor learned one kind of weight.

    Attributes:
      loss: the mean training loss in its last epoch.
      agreement: how far its predictions of layers that exist agree with them, from 0 to 1 (`lesa.predict.agreement`).
      left_out: with --rank, the Frobenius norm of what these directions leave out, over that of all.
    """

    loss: float
    agreement: float
    left_out: float | None = None


@dataclass(frozen=True)
class KindResult:
    """What was measured on one predicted kind of weight.

    Attributes:
      old_norm: mean Frobenius norm of the original matrices.
      new_norm: the same of the new layers' matrices.
      loss, agreement, left_out: how well a predictor learned, see `Learned`; None for methods without one.
    """

    old_norm: float
    new_norm: float
    loss: float | None = None
    agreement: float | None = None
    left_out: float | None = None


def averaged(results: Sequence[KindResult]) -> KindResult:
    """The mean of one or more, all with the same fields."""
    columns = zip(*(astuple(result) for result in results), strict=True)
    return KindResult(*(None if None in column else fmean(column) for column in columns))  # pyright: ignore


@dataclass(frozen=True)
class RouterResult:
    """How evenly a new layer's router uses its experts.

    Attributes:
      layer: its number.
      before, after: the entropy of the experts' shares of tokens over the largest, by the router as the method made it,
        and as it was fitted; the same where none was.
    """

    layer: int
    before: float
    after: float


@dataclass(frozen=True, repr=False)
class ExpandResult(Facts):
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
      routers: of new layers with experts, where there was a text to route.
      notes: what the method could not do with this family of models, one line each.
      seconds: wall-clock time by stage.
      peak_memory: largest resident size of this process so far, bytes.
      estimated_memory: what computing new layers was expected to need, bytes; 0 where none are computed.
      scratch: what was expected to lie on the disk meanwhile, bytes.
      dry_run: whether nothing was written.
      expected_seconds: of a dry run, that making the new matrices will take; None where that is not known.
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
    routers: tuple[RouterResult, ...]
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    peak_memory: int
    estimated_memory: int
    scratch: int
    dry_run: bool
    expected_seconds: float | None = None

    @property
    def facts(self) -> tuple[Fact, ...]:
        measured = change(**self.perplexity) if self.perplexity else None
        known = {
            "method": self.method,
            **{f"{name}layers": f"{plan.source_layers} -> {plan.layers}" for name, plan in self.plan.named},
            "perplexity": measured,
            "parameters": "{:,} -> {:,}".format(*self.parameters),
            "output": "none, a dry run" if self.dry_run else str(self.output),
            "plan": str(self.plan),
            "function": self.function,
            "note": "; ".join(self.notes),
            "seconds": f"{sum(self.seconds.values()):.1f}",
        }
        return tuple((name, value) for name, value in known.items() if value)

    @property
    def harm(self) -> float:
        """How many times the original's the grown model's perplexity is; 1 where it was not measured."""
        if not self.perplexity:
            return 1.0
        return self.perplexity["after"] / self.perplexity["before"]
