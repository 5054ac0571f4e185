"""What the user reads on the terminal after an expansion."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from lesa_jax.base.console import report_console
from lesa_jax.base.units import duration, format_bytes
from lesa_jax.growth.result import ExpandResult, KindResult
from lesa_jax.planning.plan import Plan

HARMFUL = 1.5  # times the original's perplexity
DISK = 500_000_000  # bytes that a disk takes a second, as an example: an SSD behind SATA, or rented in a cloud


def print_report(report: ExpandResult, console: Console | None = None) -> None:
    """Prints the report as tables."""
    console = console or report_console()
    dry = " (dry run: nothing was written)" if report.dry_run else ""
    console.print(
        f"{report.method}: {depths(report.plan)} layers{dry}",
        highlight=False,
        soft_wrap=True,
    )
    facts = Table()
    facts.add_column("")
    facts.add_column("before", justify="right")
    facts.add_column("after", justify="right")
    for name, plan in report.plan.named:
        facts.add_row(f"{name}layers", str(plan.source_layers), str(plan.layers))
    facts.add_row("parameters", *(f"{count:,}" for count in report.parameters))
    if report.perplexity:
        facts.add_row("perplexity", *(f"{report.perplexity[when]:.4f}" for when in ("before", "after")))
    console.print(facts)
    if report.harm > HARMFUL:
        console.print(
            f"harmful   the new layers multiply the perplexity by {report.harm:.3g}, and training begins from there: "
            "scale what they write with --calibrate TEXT, or take silent ones, as --method llama_pro has them",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"plan      {report.plan}   (+g is a new layer above original g)", highlight=False, soft_wrap=True)
    if report.silenced:
        console.print(f"silenced  {', '.join(report.silenced)} are zero in new layers", highlight=False, soft_wrap=True)
    for note in report.notes:
        console.print(f"note      {note}", highlight=False, soft_wrap=True)
    if report.not_predicted:
        kinds = ", ".join(report.not_predicted)
        console.print(f"not predicted  {kinds}: taken over by --norm-source", highlight=False, soft_wrap=True)
    if report.function:
        console.print(f"function  {report.function}", highlight=False, soft_wrap=True)
    if report.scales:
        scales = ", ".join(f"{scale:.3f}" for scale in report.scales)
        losses = ", ".join(f"{name} {loss:.5f}" for name, loss in report.losses.items())
        console.print(f"scales    {scales} of the new layers' outputs", highlight=False, soft_wrap=True)
        console.print(f"loss      {losses} on the calibration text", highlight=False, soft_wrap=True)
    if report.routers:
        entropies = ", ".join(f"{router.layer}: {router.before:.3f} -> {router.after:.3f}" for router in report.routers)
        console.print(f"routers   {entropies}   (entropy of the load, 1 is even)", highlight=False, soft_wrap=True)
    if report.kinds:
        console.print("Frobenius norm of one tensor, mean over layers:", highlight=False, soft_wrap=True)
        console.print(norm_table(report.kinds))
    if report.dry_run:
        if report.estimated_memory:
            scratch = f", and {format_bytes(report.scratch)} of scratch on the disk" if report.scratch else ""
            memory = f"about {format_bytes(report.estimated_memory)} at its peak{scratch}"
            console.print(f"memory    {memory}", highlight=False, soft_wrap=True)
        if report.expected_seconds is not None:
            long = report.expected_seconds > 60
            expected = f"about {duration(report.expected_seconds)}" if long else "a minute or less"
            why = "for the new matrices, by how fast products are here"
            console.print(f"time      {expected} {why}", highlight=False, soft_wrap=True)
        rate = f"{duration(report.nbytes / DISK)} on a disk that takes {format_bytes(DISK)} a second"
        to_write = f"{format_bytes(report.nbytes)} into {report.output}: {rate}"
        console.print(f"to write  {to_write}", highlight=False, soft_wrap=True)
        return
    times = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report.seconds.items())
    console.print(f"seconds   {times}; total {sum(report.seconds.values()):.1f}", highlight=False, soft_wrap=True)
    console.print(f"memory    {format_bytes(report.peak_memory)} at its peak", highlight=False, soft_wrap=True)
    console.print(f"written   {format_bytes(report.nbytes)} into {report.output}", highlight=False, soft_wrap=True)


def depths(plan: Plan) -> str:
    """`4 -> 6`, or `encoder 4 -> 6, decoder 5 -> 7`."""
    return ", ".join(f"{name}{stack.source_layers} -> {stack.layers}" for name, stack in plan.named)


def norm_table(kinds: Mapping[str, KindResult]) -> Table:
    table = Table()
    table.add_column("weight kind")
    ranked = any(kind.left_out is not None for kind in kinds.values())
    for column in ("original", "new", "new/original", "loss", "agreement", *(["left out"] if ranked else [])):
        table.add_column(column, justify="right")
    for name, kind in kinds.items():
        ratio = kind.new_norm / kind.old_norm if kind.old_norm else float("nan")
        measured = (kind.loss, kind.agreement, *([kind.left_out] if ranked else []))
        learned = ("" if value is None else f"{value:.3g}" for value in measured)
        table.add_row(name, f"{kind.old_norm:.2f}", f"{kind.new_norm:.2f}", f"{ratio:.2f}", *learned)
    return table
