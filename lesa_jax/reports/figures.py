"""Pictures made with matplotlib."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lesa_jax.base.files import replace_file
from lesa_jax.reports.palette import DPI, GRID


@contextmanager
def picture(png: Path, width: int, height: int) -> Iterator[Any]:
    """A figure (of matplotlib) of so many pixels to draw on.

    When the block ends well, the file is written beside and renamed.
    """
    # Slow to import. pyplot would keep figures and choose a backend for the whole process.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
    yield figure
    # Without the version of matplotlib the same numbers give the same bytes for longer.
    replace_file(png, lambda beside: figure.savefig(beside, format="png", metadata={"Software": None}))


def open_axes(axes: Any, grid: Literal["both", "x", "y"] = "both") -> None:
    """Takes the upper and right edge of a panel away and puts a light grid behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
