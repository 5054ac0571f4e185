"""The model card of a widened checkpoint."""

from pathlib import Path

from lesa_jax.checkpoint.cards import front_matter
from lesa_jax.widening.result import WidenResult

SOURCES = {"lemon": "arXiv 2310.07999", "hyperclone": "HyperCloning, arXiv 2409.12903"}
TAGS = ("width-growth", "lesa_jax")


def model_card(report: WidenResult, model: str, original: Path) -> str:
    """README.md of the output: what was done, and what to do next. The same run gives the same text.

    Args:
      report: of the widening.
      model: the original's name.
      original: its folder, whose own card names a licence.
    """
    sizes = "; ".join("{} {:,} -> {:,}".format(name, *size) for name, size in report.named.items())
    lines = [
        front_matter(original, model, tags=TAGS),
        f"# {report.factor} times as wide",
        f"Made of {model} with lesa_jax, method `{report.method}` ({SOURCES[report.method]}): {sizes}. It computes "
        f"what the original computes. Parameters: {report.parameters[0]:,} before, {report.parameters[1]:,} after. "
        "widening.json holds the same for programs, with all settings, versions and checksums of the source.",
    ]
    lines += [f"Note: {note}." for note in report.notes]
    lines.append(
        "## What next\n\nThis is a starting point, not a better model: nothing has been trained yet. Continue "
        "pre-training with all of it trainable (`lesa train --train all`), or make it deeper first (`lesa expand`)."
    )
    lines.append(
        "## How it was made\n\n`lesa widen --recipe FOLDER/widening.json --model ORIGINAL --output AGAIN` makes the "
        "same again, with the versions that widening.json names."
    )
    return "\n\n".join(lines) + "\n"
