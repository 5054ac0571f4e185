"""What a training run is, and what came of it, as data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from jax.typing import DTypeLike

from lesa_jax.families.model import ModelConfig
from lesa_jax.models.attention import no_kernel
from lesa_jax.reports.facts import Fact, Facts, change
from lesa_jax.training.cost import Cost, StateBytes, state_bytes, token_cost, update_operations
from lesa_jax.training.folder import FINAL
from lesa_jax.training.job import TrainJob
from lesa_jax.training.segments import Segment

Losses = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, repr=False)
class TrainResult(Facts):
    """A run's size, and once it has run, its results.

    Attributes:
      output: RUN.
      final: the trained model's folder; None where none is written.
      trained, frozen: parameters.
      segments: as text.
      memory: bytes on the fullest device, activations not counted.
      devices: how many, and of what kind.
      cost: of one token.
      no_kernel: why no kernel computes attention on the accelerator; None where one does, and on a CPU.
      steps, tokens: of the whole run.
      step_seconds: estimated; for a dry run only.
      done: steps done; None for a dry run.
      stopped: by a signal, before the end; the same call goes on.
      interrupted: a signal came, be it when the run was at its end already; whoever runs several should end, too.
      losses: held-out losses before and after, by the metrics' names, where measured.
      base_losses: those of the model without its new layers, before.
      seconds: that the run took, this time.
    """

    output: str
    trained: int
    frozen: int
    segments: str
    memory: StateBytes
    devices: str
    cost: Cost
    steps: int
    tokens: int
    final: str | None = None
    no_kernel: str | None = None
    step_seconds: float | None = None
    done: int | None = None
    stopped: bool = False
    interrupted: bool = False
    losses: Losses = field(default_factory=dict)
    base_losses: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def facts(self) -> tuple[Fact, ...]:
        known = {
            "steps": f"{self.steps:,}" if self.done is None else f"{self.done:,} of {self.steps:,}",
            "held-out loss": change(*self.losses["eval_loss"]) if "eval_loss" in self.losses else "",
            "loss on what was known": change(*self.losses["retain_loss"]) if "retain_loss" in self.losses else "",
            "trained": f"{self.trained:,} parameters",
            "frozen": f"{self.frozen:,} parameters",
            "tokens": f"{self.tokens:,}",
            "output": self.output,
            "seconds": "" if self.done is None else f"{self.seconds:.1f}",
            "seconds a step": "" if self.step_seconds is None else f"{self.step_seconds:.3g}, estimated",
            "stopped": "the same call goes on" if self.stopped else "",
        }
        return tuple((name, value) for name, value in known.items() if value)


def paired(first: Mapping[str, float], last: Mapping[str, float]) -> Losses:
    """Losses before and after, by name."""
    return {name: (first[name], last[name]) for name in first}


def in_words(segments: Sequence[Segment]) -> str:
    """`8 + 8 x 2`: how often each pattern is repeated, and of how many layers it is."""
    return " + ".join(
        f"{segment.repeats} x {segment.width}" if segment.width > 1 else f"{segment.repeats}" for segment in segments
    )


def describe(job: TrainJob) -> TrainResult:
    """The size of a run that is still to come."""
    counts = {
        trained: sum(math.prod(leaf.shape) for leaf in job.leaves if leaf.trained == trained)
        for trained in (True, False)
    }
    rule = job.optimizer.rule
    cost = token_cost(job.config, job.leaves, job.sequence_length, job.target_length)
    return TrainResult(
        output=str(job.settings.output),
        final=str(job.settings.output / FINAL) if job.settings.keeping.export == "hf" else None,
        trained=counts[True],
        frozen=counts[False],
        segments=in_words(job.segments)
        if job.config.encoder is None
        else f"encoder {in_words(job.program.encoder)}; decoder {in_words(job.segments)}",
        memory=state_bytes(job.leaves, job.shardings, job.frozen_dtype, bool(rule.ema), rule.moments),
        devices=f"{job.mesh.size} x {job.mesh.devices.flat[0].device_kind}",
        no_kernel=no_attention_kernel(
            job.mesh.devices.flat[0].platform, job.config, job.frozen_dtype, job.sequence_length
        ),
        cost=replace(cost, update=update_operations(job.leaves, rule) / job.step_tokens),
        steps=job.optimizer.steps,
        tokens=job.optimizer.steps * job.step_tokens,
    )


def no_attention_kernel(platform: str, config: ModelConfig, dtype: DTypeLike, tokens: int) -> str | None:
    """Why attention has no kernel where an accelerator could have one, for sequences of so many tokens."""
    if platform == "cpu":
        return None
    if config.encoder is not None:
        return "encoder-decoders have none yet"
    return no_kernel(platform, dtype, tokens, config.head_dim, config.attention_cap)


def without_kernel(reason: str) -> str:
    """What it costs that attention has no kernel."""
    return f"no kernel ({reason}): computed block by block, in some two to four times a kernel's time"
