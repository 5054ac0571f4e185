"""How a benchmark shows its figures: a table on the terminal, and the same as Markdown with the machine above it."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table


def write_report(
    path: Path, script: str, packages: Sequence[str], what: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Prints the table and writes it.

    Args:
      path: of the Markdown file.
      script: whose figures they are, as it is called.
      packages: whose versions matter.
      what: was measured, in a few words.
      header, rows: of the table.
    """
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    Console(width=150).print(table)
    machine = f"{os.cpu_count()} cores ({platform.machine()}), {jax.default_backend()}"
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    python = f"Python {platform.python_version()}"
    text = f"`python {script}`: {machine}, {python}, {versions}; {what}.\n\n"
    path.write_text(text + "\n".join(markdown_table(header, rows)) + "\n", encoding="utf-8")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
