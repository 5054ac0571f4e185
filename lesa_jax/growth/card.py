"""The model card of a grown checkpoint."""

from lesa_jax.growth.result import ExpandResult
from lesa_jax.planning.methods import METHODS


def model_card(report: ExpandResult, model: str) -> str:
    """README.md of the output: what was done, what was measured, what to do next. The same run gives the same text."""
    grown = [(name, plan) for name, plan in report.plan.named if plan.new_layers]
    new = "; ".join(f"{name}{', '.join(map(str, plan.new_layers))}" for name, plan in grown)
    depths = ", ".join(f"{plan.source_layers} {name}layers grown to {plan.layers}" for name, plan in grown)
    base = f"base_model: {model}\n" if model.count("/") == 1 and not model.startswith((".", "/")) else ""
    lines = [
        f"---\n{base}library_name: transformers\ntags: [depth-up-scaling, lesa_jax]\n---",
        f"# {depths}",
        f"Grown from {model} with lesa_jax, method `{report.method}` ({METHODS[report.method].source}). "
        f"Layers {new} (counted from 0) are new; every other tensor is the original's, byte for byte. "
        f"Parameters: {report.parameters[0]:,} before, {report.parameters[1]:,} after.",
        f"Plan, where `+g` is a new layer above original layer g: `{report.plan}`. "
        "growth.json holds the same for programs, with all settings, versions and checksums of the source.",
    ]
    lines += [f"Note: {note}." for note in report.notes]
    if report.function:
        lines.append(f"Function of the original layers: {report.function}.")
    if report.perplexity:
        before, after = (report.perplexity[when] for when in ("before", "after"))
        lines.append(f"Perplexity right after growth, without training: {before:.4f} before, {after:.4f} after.")
    lines.append(
        "## What next\n\nThis is a starting point, not a better model: nothing has been trained yet. Continue "
        f"pre-training with only the new layers trainable ({report.new_parameters:,} parameters: layers {new}), the "
        "original layers, embeddings, final norm and head frozen; then fine-tune all of it on your task."
    )
    return "\n\n".join(lines) + "\n"
