"""The charts of an analysis as PNG files."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from lesa_jax.analysis.panels import Line, Panel
from lesa_jax.reports.figures import open_axes, picture
from lesa_jax.reports.palette import DASHES, INK, PALETTE, style

ACROSS = 3  # charts side by side
NOTE = 80  # letters of a line under a chart


def draw_panels(panels: Sequence[Panel], png: Path) -> None:
    """Draws all of them into one file."""
    down = -(-len(panels) // ACROSS)
    with picture(png, 520 * ACROSS, 430 * down) as figure:
        places = figure.subplots(down, ACROSS, squeeze=False).reshape(-1)
        for axes, panel in zip(places, panels, strict=False):
            draw_panel(axes, panel)
        for axes in places[len(panels) :]:
            axes.axis("off")


def draw_panel(axes: Any, panel: Panel) -> None:
    for layer in panel.marked:
        axes.axvline(layer, color=INK, linewidth=6, alpha=0.1)
    for line in panel.lines:
        axes.plot(line.x, line.y, label=line.name, **look(line))
    axes.set_title(panel.title, fontsize=11)
    axes.set_xlabel("\n".join(filter(None, [panel.unit, fill(panel.beyond, NOTE)])), fontsize=9)
    axes.set_xlim(*panel.across)
    axes.set_ylim(*panel.upright)
    open_axes(axes)
    axes.legend(fontsize=8, framealpha=0.8, edgecolor="none")


def look(line: Line) -> dict[str, Any]:
    colour, dashes = style(line.position)
    dashed = (0, DASHES[dashes]) if DASHES[dashes] else "-"
    return {"color": PALETTE[colour], "linewidth": 1.8, "linestyle": dashed}
