"""The model card of a checkpoint that layers were taken out of."""

from pathlib import Path

from lesa_jax.checkpoint.cards import front_matter
from lesa_jax.planning.record import Growth
from lesa_jax.ungrowth.result import UngrowResult


def model_card(report: UngrowResult, growth: Growth, grown: Path) -> str:
    """README.md of the output: what was taken out, and what is still new; `grown` is the folder that it was taken of.
    The same run gives the same text.
    """
    depths = ", ".join(f"{cut.before} {cut.name}layers cut to {cut.after}" for cut in report.cuts)
    gone = "; ".join(f"{cut.name}{', '.join(map(str, cut.dropped))}" for cut in report.cuts)
    new = [f"{name}{', '.join(map(str, plan.new_layers))}" for name, plan in report.plan.named if plan.new_layers]
    lines = [
        front_matter(grown, growth.source.get("model"), report.plan.encoder is not None),
        f"# {depths}",
        f"Grown from {growth.source.get('model')} with lesa_jax, method `{growth.method}`; then its new layers {gone} "
        f"(counted from 0) were taken out again. The original layers are {report.originals}. "
        f"Parameters: {report.parameters[0]:,} before, {report.parameters[1]:,} after.",
    ]
    if new:
        lines.append(
            f"Layers {'; '.join(new)} are still new. Plan, where `+g` is a new layer above original layer g: "
            f"`{report.plan}`. growth.json holds the same for programs."
        )
    lines += [f"Note: {note}." for note in report.notes]
    return "\n\n".join(lines) + "\n"
