"""The model card of a grown checkpoint."""

from pathlib import Path

from lesa_jax.checkpoint.cards import front_matter
from lesa_jax.growth.result import ExpandResult
from lesa_jax.planning.methods import METHODS

USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```"""


def model_card(report: ExpandResult, model: str, original: Path) -> str:
    """README.md of the output: what was done, what was measured, what to do next. The same run gives the same text.

    Args:
      report: of the expansion.
      model: the original's name.
      original: its folder, whose own card names a licence.
    """
    pairs = report.plan.encoder is not None
    grown = [(name, plan) for name, plan in report.plan.named if plan.new_layers]
    new = "; ".join(f"{name}{', '.join(map(str, plan.new_layers))}" for name, plan in grown)
    depths = ", ".join(f"{plan.source_layers} {name}layers grown to {plan.layers}" for name, plan in grown)
    lines = [
        front_matter(original, model, pairs),
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
    lines.append("## How to use it\n\n" + (USE.replace("CausalLM", "Seq2SeqLM") if pairs else USE))
    lines.append(
        "## How it was made\n\n`lesa expand --recipe FOLDER/growth.json --model ORIGINAL --output AGAIN` makes the "
        "same again, with the versions that growth.json names."
    )
    return "\n\n".join(lines) + "\n"
