"""What the user reads of a step that was compiled for other hardware, and what can be done about it."""

from collections.abc import Iterator

from rich.table import Table

from lesa_jax.base.console import report_console
from lesa_jax.base.units import format_bytes
from lesa_jax.training.compiled import CompiledStep
from lesa_jax.training.result import without_kernel

MEANINGS = {
    "all-gather": "shares put together",
    "all-reduce": "sums that all get",
    "reduce-scatter": "sums that are shared out",
    "all-to-all": "shared otherwise",
    "collective-permute": "passed on",
}


def print_compiled(step: CompiledStep) -> None:
    console = report_console()
    table = Table(show_header=False)
    limit, target = step.target.chip.memory, step.target
    table.add_row("target", f"{target.name}: {target.chips} x {target.chip.kind}")
    table.add_row("step", f"{step.sequences} sequences, {step.tokens:,} tokens")
    table.add_row("layers", f"{step.run.segments} (scans)")
    table.add_row("fits", verdict(step))
    parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in step.parts.items() if size)
    total = "unknown" if step.total is None else format_bytes(step.total)
    table.add_row("memory a chip", f"{total} of {format_bytes(round(limit))}: {parts}")
    kept = ", ".join(f"{name} {format_bytes(size)}" for name, size in step.kept.items())
    table.add_row("--remat", f"{step.remat}; what layers keep for the backward pass: {kept}")
    for kind, sent in step.by_kind().items():
        table.add_row(
            kind,
            f"{sent['count']:,} a step at {sent['places']} places, each chip sends {format_bytes(int(sent['bytes']))} "
            f"({MEANINGS[kind]})",
        )
    if step.total is not None and not step.collectives and target.chips > 1:
        table.add_row("network", "nothing is sent")
    table.add_row("kernels", ", ".join(f"{name} x {times:,}" for name, times in step.kernels.items()) or "XLA's own")
    cost, once, again = step.run.cost, step.per_token(step.products.once), step.per_token(step.products.again)
    table.add_row(
        "operations a token",
        f"{cost.total:.4g} by the formula, {cost.attention:.4g} of them attention's; the program's products are "
        f"{once:.4g}, and {again:.4g} that --remat computes again",
    )
    floors = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in step.floor_seconds.items())
    table.add_row("a step takes at least", f"{floors}; {step.tokens / max(step.floor_seconds.values()):,.0f} tokens/s")
    if step.most_sequences is not None:
        table.add_row("largest batch", f"about {step.most_sequences} sequences")
    table.add_row("compiled in", f"{step.seconds:.0f} s")
    console.print(table)
    for line in advice(step):
        console.print(line, soft_wrap=True)


def verdict(step: CompiledStep) -> str:
    limit = step.target.chip.memory
    if step.total is None:
        return "no: the compiler refuses it for want of memory"
    if step.fits:
        return f"yes, {format_bytes(round(limit - step.total))} to spare"
    return f"no, {format_bytes(round(step.total - limit))} too much"


def advice(step: CompiledStep) -> Iterator[str]:
    """What to change, the most useful first."""
    if not step.fits:
        yield from remedies(step)
    elif not step.preallocated:
        yield "set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95: JAX takes three quarters of a GPU's memory unless it is told"
    floors = step.floor_seconds
    if floors["network"] > max(floors["compute"], floors["memory"]):
        yield (
            "the network is the slowest part: use a smaller --accumulate or a larger --batch-size, which gather "
            "weights less often for each token, or fewer chips"
        )
    if step.run.no_kernel is not None:
        yield f"attention: {without_kernel(step.run.no_kernel)}"


def remedies(step: CompiledStep) -> Iterator[str]:
    """Against too little memory."""
    activations, state = step.parts["activations"], step.run.memory.total
    if step.remat != "full":
        yield f"use --remat full: it keeps {format_bytes(step.kept['full'])} instead of {format_bytes(activations)}"
    if activations + max(step.parts.get("rest", 0), 0) > state // 4:
        yield "use a larger --accumulate, or a smaller --batch-size or --sequence-length"
    if state > step.target.chip.memory // 2:
        yield f"use more chips: weights, moments and gradient alone are {format_bytes(state)} on each of these"
