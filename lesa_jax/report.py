"""What the user reads after an expansion: a table on the terminal, and the model card in the output folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lesa_jax.methods import METHODS
from lesa_jax.plan import Plan


@dataclass(frozen=True)
class KindReport:
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
class ExpandReport:
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
      scales: of the new layers' outputs, if they were calibrated.
      losses: then, on the calibration text: of the "base", of the model as grown ("one"), and "calibrated".
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
    kinds: Mapping[str, KindReport]
    silenced: tuple[str, ...]
    scales: tuple[float, ...]
    losses: Mapping[str, float]
    seconds: Mapping[str, float]
    peak_memory: int
    estimated_memory: int
    dry_run: bool


def print_report(report: ExpandReport, console: Console | None = None) -> None:
    """Prints the report as tables."""
    console = console or Console()
    dry = " (dry run: nothing was written)" if report.dry_run else ""
    console.print(
        f"{report.method}: {report.plan.source_layers} -> {report.plan.layers} layers{dry}",
        highlight=False,
        soft_wrap=True,
    )
    facts = Table()
    facts.add_column("")
    facts.add_column("before", justify="right")
    facts.add_column("after", justify="right")
    facts.add_row("layers", str(report.plan.source_layers), str(report.plan.layers))
    facts.add_row("parameters", *(f"{count:,}" for count in report.parameters))
    if report.perplexity:
        facts.add_row("perplexity", *(f"{report.perplexity[when]:.4f}" for when in ("before", "after")))
    console.print(facts)
    console.print(f"plan      {report.plan}   (+g is a new layer above original g)", highlight=False, soft_wrap=True)
    if report.silenced:
        console.print(f"silenced  {', '.join(report.silenced)} are zero in new layers", highlight=False, soft_wrap=True)
    if report.scales:
        scales = ", ".join(f"{scale:.3f}" for scale in report.scales)
        losses = ", ".join(f"{name} {loss:.5f}" for name, loss in report.losses.items())
        console.print(f"scales    {scales} of the new layers' outputs", highlight=False, soft_wrap=True)
        console.print(f"loss      {losses} on the calibration text", highlight=False, soft_wrap=True)
    if report.kinds:
        console.print("Frobenius norm of one matrix, mean over layers:", highlight=False, soft_wrap=True)
        console.print(norm_table(report.kinds))
    if report.dry_run:
        memory = format_bytes(report.estimated_memory)
        console.print(
            f"memory    about {memory} at its peak, besides 0.5 GB for the program", highlight=False, soft_wrap=True
        )
        console.print(f"to write  {format_bytes(report.nbytes)} into {report.output}", highlight=False, soft_wrap=True)
        return
    times = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.seconds.items())
    console.print(f"seconds   {times}; total {sum(report.seconds.values()):.1f}", highlight=False, soft_wrap=True)
    console.print(f"memory    {format_bytes(report.peak_memory)} at its peak", highlight=False, soft_wrap=True)
    console.print(f"written   {format_bytes(report.nbytes)} into {report.output}", highlight=False, soft_wrap=True)


def norm_table(kinds: Mapping[str, KindReport]) -> Table:
    table = Table()
    table.add_column("weight kind")
    for column in ("original", "new", "new/original", "loss"):
        table.add_column(column, justify="right")
    for name, kind in kinds.items():
        ratio = kind.new_norm / kind.old_norm if kind.old_norm else float("nan")
        loss = "" if kind.loss is None else f"{kind.loss:.3g}"
        table.add_row(name, f"{kind.old_norm:.2f}", f"{kind.new_norm:.2f}", f"{ratio:.2f}", loss)
    return table


def format_bytes(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.1f} MB"


def model_card(report: ExpandReport, model: str) -> str:
    """README.md of the output: what was done, what was measured, what to do next. The same run gives the same text."""
    new = ", ".join(map(str, report.plan.new_layers))
    base = f"base_model: {model}\n" if model.count("/") == 1 and not model.startswith((".", "/")) else ""
    lines = [
        f"---\n{base}library_name: transformers\ntags: [depth-up-scaling, lesa_jax]\n---",
        f"# {report.plan.source_layers} layers grown to {report.plan.layers}",
        f"Grown from {model} with lesa_jax, method `{report.method}` ({METHODS[report.method].source}). "
        f"Layers {new} (counted from 0) are new; every other tensor is the original's, byte for byte. "
        f"Parameters: {report.parameters[0]:,} before, {report.parameters[1]:,} after.",
        f"Plan, where `+g` is a new layer above original layer g: `{report.plan}`. "
        "growth.json holds the same for programs, with all settings, versions and checksums of the source.",
    ]
    if report.perplexity:
        before, after = (report.perplexity[when] for when in ("before", "after"))
        lines.append(f"Perplexity right after growth, without training: {before:.4f} before, {after:.4f} after.")
    lines.append(
        "## What next\n\nThis is a starting point, not a better model: nothing has been trained yet. Continue "
        f"pre-training with only the new layers trainable ({report.new_parameters:,} parameters: layers {new}), the "
        "original layers, embeddings, final norm and head frozen; then fine-tune all of it on your task."
    )
    return "\n\n".join(lines) + "\n"
