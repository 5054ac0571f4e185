"""What the benchmarks that compile for other hardware share: each case in a process of its own, done once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lesa_jax.base.files import read_json, write_json


def reported(
    file: Path, wanted: bool, compile_case: Callable[..., dict[str, Any]], *args: Any
) -> dict[str, Any] | None:
    """A case's report, from its file; if it is `wanted` and not there, compiled now. None if it is neither.

    In another process, because JAX is told of other compilers once, and so that its memory goes with it.
    """
    if wanted and not file.exists():
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found = process.submit(compile_case, *args).result()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, found)
    return read_json(file, "made here") if file.exists() else None


def write_table(table: Path, lines: Sequence[str]) -> None:
    """Writes and prints a Markdown page."""
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("\n".join(lines) + "\n")
    print(table.read_text())
