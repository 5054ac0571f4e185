"""What the user reads on the terminal after an ungrowth."""

from rich.console import Console
from rich.table import Table

from lesa_jax.base.console import report_console
from lesa_jax.base.units import format_bytes
from lesa_jax.ungrowth.result import UngrowResult


def print_report(report: UngrowResult, console: Console | None = None) -> None:
    """Prints the report: a table, and a line for each fact."""
    console = console or report_console()
    facts = Table()
    facts.add_column("")
    facts.add_column("before", justify="right")
    facts.add_column("after", justify="right")
    for cut in report.cuts:
        facts.add_row(f"{cut.name}layers", str(cut.before), str(cut.after))
    facts.add_row("parameters", *(f"{count:,}" for count in report.parameters))
    console.print(facts)
    gone = "; ".join(f"{cut.name}{', '.join(map(str, cut.dropped))}" for cut in report.cuts)
    lines = [
        ("gone", gone),
        ("plan", "the original's: no layer is new" if report.plan.is_original else str(report.plan)),
        ("originals", report.originals),
        *(("note", note) for note in report.notes),
        ("seconds", f"{report.seconds:.1f}"),
        ("written", f"{format_bytes(report.nbytes)} into {report.output}"),
    ]
    for name, fact in lines:
        console.print(f"{name:<9} {fact}", highlight=False, soft_wrap=True)
