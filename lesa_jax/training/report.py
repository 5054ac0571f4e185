"""What the user reads of a training run on the terminal: before it (--dry-run), and at its end."""

import math
import sys

from rich.table import Table

from lesa_jax.base.console import report_console
from lesa_jax.base.units import format_bytes
from lesa_jax.training.result import TrainResult, without_kernel


def print_train_report(report: TrainResult) -> None:
    console = report_console()
    table = Table(show_header=False)
    table.add_row("trained", f"{report.trained:,} parameters")
    table.add_row("frozen", f"{report.frozen:,} parameters")
    table.add_row("layers", f"{report.segments} (scans)")
    memory = report.memory
    table.add_row(
        "memory a device",
        f"{format_bytes(memory.total)}: frozen {format_bytes(memory.frozen)}, trained {format_bytes(memory.trained)}, "
        f"moments {format_bytes(memory.moments)}, gradient {format_bytes(memory.gradient)}"
        + (f", moving average {format_bytes(memory.average)}" if memory.average else "")
        + "; and activations",
    )
    table.add_row("devices", report.devices)
    table.add_row(
        "work a token", f"{report.cost.forward / 1e6:,.1f} MFLOP forward, {report.cost.backward / 1e6:,.1f} backward"
    )
    if report.no_kernel is not None:
        table.add_row("attention", without_kernel(report.no_kernel))
    table.add_row("length", f"{report.steps:,} steps, {report.tokens:,} tokens")
    if report.step_seconds is not None:
        hours = report.step_seconds * report.steps / 3600
        table.add_row("time", f"about {report.step_seconds:.3g} s a step, {hours:.2g} hours in all")
        console.print(table)
        return
    for name, words in (("eval_loss", "held-out loss"), ("retain_loss", "loss on what was known")):
        if name in report.losses:
            first, last = report.losses[name]
            base = report.base_losses.get(name)
            original = "" if base is None else f", {perplexity(base):.2f} without the new layers"
            perplexities = f"perplexity {perplexity(first):.2f} -> {perplexity(last):.2f}{original}"
            table.add_row(words, f"{first:.4f} -> {last:.4f} ({perplexities})")
    table.add_row("time", f"{report.seconds:.1f} s")
    console.print(table)
    if report.stopped:
        console.print(
            f"stopped and saved after step {report.done} of {report.steps}: run the same command again to go on",
            soft_wrap=True,
        )
    else:
        made = report.output if report.final is None else report.final
        console.print(f"finished: {made}", highlight=False, soft_wrap=True)


def perplexity(loss: float) -> float:
    """e to the loss in nats; infinite where that is more than there are numbers for."""
    return math.exp(loss) if loss < math.log(sys.float_info.max) else math.inf
