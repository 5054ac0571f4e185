"""What the user reads on the terminal after an analysis."""

from rich.console import Console
from rich.table import Table

from lesa_jax.analysis.result import Analysis
from lesa_jax.analysis.verdict import verdict
from lesa_jax.base.console import report_console


def print_report(found: Analysis, console: Console | None = None) -> None:
    """Prints the layers as a table, and the verdict."""
    console = console or report_console()
    table = Table()
    for heading in ("layer", "angle", "influence", "importance", "effect", "lens", "overlap"):
        table.add_column(heading, justify="right")
    measured = found.measured
    for number, layer in enumerate(measured.layers):
        name = f"{number} new" if number in found.new else str(number)
        values = layer.angle, layer.block_influence, measured.importance[number], measured.effects.output[number]
        table.add_row(name, *(f"{value:.4f}" for value in values), f"{layer.lens_kl:.3f}", f"{layer.lens_overlap:.2f}")
    console.print(table)
    for sentence in verdict(found):
        console.print(sentence, highlight=False, soft_wrap=True)
    console.print(f"seconds   {found.seconds:.1f}", highlight=False)
