"""What the user reads on the terminal after a widening."""

from rich.console import Console
from rich.table import Table

from lesa_jax.base.console import report_console
from lesa_jax.base.units import format_bytes
from lesa_jax.widening.result import WidenResult


def print_report(report: WidenResult, console: Console | None = None) -> None:
    """Prints the report: a table, and a line for each fact."""
    console = console or report_console()
    facts = Table()
    facts.add_column("")
    facts.add_column("before", justify="right")
    facts.add_column("after", justify="right")
    for name, size in {**report.named, "parameters": report.parameters}.items():
        facts.add_row(name, *(f"{count:,}" for count in size))
    console.print(facts)
    lines = [
        ("method", report.method),
        *(("note", note) for note in report.notes),
        ("seconds", f"{report.seconds:.1f}"),
        ("written", f"{format_bytes(report.nbytes)} into {report.output}"),
    ]
    for name, fact in lines:
        console.print(f"{name:<9} {fact}", highlight=False, soft_wrap=True)
