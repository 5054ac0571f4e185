"""What a training run says: before (--dry-run), and at its end."""

import math
import time
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from lesa_jax.base.units import format_bytes
from lesa_jax.training.cost import StateBytes, device_peak, state_bytes, token_cost
from lesa_jax.training.job import Job, frozen_dtype

TYPICAL_USE = 0.4  # of the peak, by a training step: for a first estimate


@dataclass(frozen=True)
class TrainReport:
    """A run's size, and once it has run, its results.

    Attributes:
      output: RUN.
      trained, frozen: parameters.
      segments: as text.
      memory: bytes on the fullest device, activations not counted.
      devices: how many, and of what kind.
      forward_flops, backward_flops: of one token.
      backward_depth: layers that have a backward pass.
      steps, tokens: of the whole run.
      step_seconds: estimated.
      done: steps done; None for a dry run.
      stopped: by a signal, before the end.
      losses: held-out loss before and after, where measured.
      seconds: that the run took, this time.
    """

    output: str
    trained: int
    frozen: int
    segments: str
    memory: StateBytes
    devices: str
    forward_flops: float
    backward_flops: float
    backward_depth: int
    steps: int
    tokens: int
    step_seconds: float
    done: int | None = None
    stopped: bool = False
    losses: tuple[float | None, float | None] = (None, None)
    seconds: float = 0.0

    def after(
        self, done: int, stopped: bool, first_loss: float | None, last_loss: float | None, seconds: float
    ) -> "TrainReport":
        return replace(self, done=done, stopped=stopped, losses=(first_loss, last_loss), seconds=seconds)


def plan_report(job: Job) -> TrainReport:
    """The size of a run. Measures a matrix product for the estimate on a device without a known peak."""
    counts = {
        trained: sum(math.prod(leaf.shape) for leaf in job.leaves if leaf.trained == trained)
        for trained in (True, False)
    }
    cost = token_cost(job.config, job.leaves, job.sequence_length)
    tokens = job.settings.batch_size * job.sequence_length
    rate = (device_peak() or measured_rate(job.program.dtype)) * jax.device_count() * TYPICAL_USE
    return TrainReport(
        output=str(job.settings.output),
        trained=counts[True],
        frozen=counts[False],
        segments=" + ".join(
            f"{segment.repeats} x {segment.width}" if segment.width > 1 else f"{segment.repeats}"
            for segment in job.segments
        ),
        memory=state_bytes(job.leaves, job.shardings, frozen_dtype(job)),
        devices=f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        forward_flops=cost.forward,
        backward_flops=cost.backward,
        backward_depth=cost.backward_depth,
        steps=job.optimizer.steps,
        tokens=job.optimizer.steps * tokens,
        step_seconds=cost.total * tokens / rate,
    )


def measured_rate(dtype: str, size: int = 1024) -> float:
    """Operations a second of a matrix product on one device."""
    a = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    started = time.perf_counter()
    product(a, a).block_until_ready()
    return 2 * size**3 / (time.perf_counter() - started)


def print_train_report(report: TrainReport) -> None:
    console = Console()
    table = Table(show_header=False)
    table.add_row("trained", f"{report.trained:,} parameters")
    table.add_row("frozen", f"{report.frozen:,} parameters")
    table.add_row("layers", f"{report.segments} (scans)")
    memory = report.memory
    table.add_row(
        "memory a device",
        f"{format_bytes(memory.total)}: frozen {format_bytes(memory.frozen)}, trained {format_bytes(memory.trained)}, "
        f"moments {format_bytes(memory.moments)}, gradient {format_bytes(memory.gradient)}; and activations",
    )
    table.add_row("devices", report.devices)
    table.add_row(
        "work a token", f"{report.forward_flops / 1e6:,.1f} MFLOP forward, {report.backward_flops / 1e6:,.1f} backward"
    )
    table.add_row("length", f"{report.steps:,} steps, {report.tokens:,} tokens")
    if report.done is None:
        days = report.step_seconds * report.steps
        table.add_row("time", f"about {report.step_seconds:.3g} s a step, {days / 3600:.2g} hours in all")
        console.print(table)
        return
    first, last = report.losses
    if first is not None and last is not None:
        table.add_row(
            "held-out loss", f"{first:.4f} -> {last:.4f} (perplexity {math.exp(first):.2f} -> {math.exp(last):.2f})"
        )
    table.add_row("time", f"{report.seconds:.1f} s")
    console.print(table)
    if report.stopped:
        console.print(
            f"stopped and saved after step {report.done} of {report.steps}: run the same command again to go on",
            soft_wrap=True,
        )
    else:
        console.print(f"finished: {report.output}", highlight=False, soft_wrap=True)
