"""What the user reads on the terminal after an ungrowth."""

from rich.console import Console

from lesa_jax.base.console import print_change, report_console
from lesa_jax.base.units import format_bytes
from lesa_jax.ungrowth.result import UngrowResult


def print_report(report: UngrowResult, console: Console | None = None) -> None:
    """Prints the report: a table, and a line for each fact."""
    rows = [(f"{cut.name}layers", str(cut.before), str(cut.after)) for cut in report.cuts]
    before, after = report.parameters
    rows.append(("parameters", f"{before:,}", f"{after:,}"))
    gone = "; ".join(f"{cut.name}{', '.join(map(str, cut.dropped))}" for cut in report.cuts)
    facts = [
        ("gone", gone),
        ("plan", "the original's: no layer is new" if report.plan.is_original else str(report.plan)),
        ("originals", report.originals),
        *(("note", note) for note in report.notes),
        ("seconds", f"{report.seconds:.1f}"),
        ("written", f"{format_bytes(report.nbytes)} into {report.output}"),
    ]
    print_change(rows, facts, console or report_console())
