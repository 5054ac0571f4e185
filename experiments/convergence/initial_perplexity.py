"""Perplexity right after growth, before any training, by every method at the same depth.

Command:   python experiments/convergence/initial_perplexity.py --model DIR --text FILE [--layers N]
               [--sequence-length N]
Run time:  about 3 minutes for a 16-layer model of 7 million parameters and 2.3 MB of text, on 2 CPU cores.
Expected:  base = llama_pro (in every digit) <= lesa < solar < duplicate, lesa within 2 % of base. The table that the
           docs/results.md shows is in experiments/results/initial_perplexity.md.

Each row is one `lesa_jax.expand.expand` into a temporary folder, evaluated from the files that it wrote. LESA and the
plain copies fill the top gaps, so that the position does not confound the comparison.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings


@dataclass(frozen=True)
class InitialPerplexitySettings:
    """What to compare on what."""

    model: str
    text: Path
    layers: int | None = None
    sequence_length: int | None = None
    output: Path = Path("experiments/results/initial_perplexity.md")


# Name in the table, and the settings that make it.
VARIANTS: dict[str, dict[str, object]] = {
    "LLaMA Pro": {"method": "llama_pro", "placement": "top"},
    "LESA": {"method": "lesa_published"},
    "LESA, even": {"method": "lesa_published", "placement": "even"},
    "LESA, previous layer's norms": {"method": "lesa_published", "norm_source": "previous"},
    "LESA without SVD": {"method": "lesa_raw"},
    "SOLAR": {"method": "solar"},
    "duplicate": {"method": "duplicate", "placement": "top"},
    "duplicate, even": {"method": "duplicate", "placement": "even"},
}


def main(settings: InitialPerplexitySettings) -> None:
    rows: list[tuple[str, int, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, options in VARIANTS.items():
            report = expand(
                ExpandSettings(
                    settings.model,
                    Path(folder) / "grown",
                    layers=settings.layers,
                    eval_text=settings.text,
                    sequence_length=settings.sequence_length,
                    overwrite=True,
                    **options,  # pyright: ignore[reportArgumentType]
                )
            )
            before, after = report.perplexity["before"], report.perplexity["after"]
            if not rows:
                rows.append(("base", report.plan.source_layers, f"{before:.6f}"))
            rows.append((name, report.plan.layers, f"{after:.6f}"))
    table = Table("method", "layers", "perplexity")
    lines = ["| method | layers | perplexity |", "|---|---|---|"]
    for name, layers, perplexity in rows:
        table.add_row(name, str(layers), perplexity)
        lines.append(f"| {name} | {layers} | {perplexity} |")
    Console().print(table)
    text = f"`{Path(settings.model).name}` on `{settings.text.name}`, no training after growth, seed 0, windows of "
    text += f"{settings.sequence_length or 'the default number of'} tokens.\n\n"
    settings.output.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(InitialPerplexitySettings, description=__doc__))
