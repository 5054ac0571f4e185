"""What the user reads on the terminal after a widening."""

from rich.console import Console

from lesa_jax.base.console import print_change, report_console
from lesa_jax.base.units import format_bytes
from lesa_jax.widening.result import WidenResult


def print_report(report: WidenResult, console: Console | None = None) -> None:
    """Prints the report: a table, and a line for each fact."""
    sizes = {**report.named, "parameters": report.parameters}
    facts = [
        ("method", report.method),
        *(("note", note) for note in report.notes),
        ("seconds", f"{report.seconds:.1f}"),
        ("written", f"{format_bytes(report.nbytes)} into {report.output}"),
    ]
    rows = [(name, f"{before:,}", f"{after:,}") for name, (before, after) in sizes.items()]
    print_change(rows, facts, console or report_console())
