"""The pictures of a comparison: perplexities before training, and losses during it."""

from pathlib import Path
from typing import Any

from lesa_jax.comparison.frontier import Frontier
from lesa_jax.comparison.ranges import LossRange
from lesa_jax.comparison.statistics import Statistics
from lesa_jax.reports.charts import is_logarithmic
from lesa_jax.reports.figures import open_axes, picture
from lesa_jax.reports.numbers import UNITS, scale
from lesa_jax.reports.palette import DASHES, INK, PALETTE, style

LABEL_LENGTH = 44  # characters of a method's name in pictures


def draw_initial(statistics: Statistics, png: Path) -> None:
    """Draws a dot for each method's initial perplexity, a bar from lowest to highest seed, and base as a line."""
    starts = statistics.starts
    with picture(png, 1000, 120 + 32 * max(3, len(starts))) as figure:
        axes = figure.subplots()
        for height, start in enumerate(starts):
            colour = INK if start.position == 0 else PALETTE[0]
            axes.plot([start.lowest, start.highest], [height, height], color=colour, linewidth=2.5, alpha=0.5)
            axes.plot([start.mean], [height], "o", color=colour, markersize=8)
            beside: dict[str, Any] = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{start.mean:.2f}", (start.highest, height), fontsize=10, **beside)
            if start.position == 0:
                axes.axvline(start.mean, color=INK, linewidth=1, linestyle=":")
        if is_logarithmic([start.mean for start in starts]):
            axes.set_xscale("log")
        axes.margins(x=0.1)
        axes.set_yticks(range(len(starts)), [picture_label(statistics.labels[start.position]) for start in starts])
        axes.invert_yaxis()
        axes.set_xlabel("perplexity before training (lower is better)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        open_axes(axes, grid="x")


def draw_curves(statistics: Statistics, png: Path) -> None:
    """Draws mean held-out loss against tokens, FLOPs and seconds, with bands of one standard deviation over seeds."""
    low, high, _ = statistics.loss_range
    handles = {}
    with picture(png, 1500, 650) as figure:
        panels = figure.subplots(1, len(UNITS), sharey=True)
        for panel, name in zip(panels, UNITS, strict=True):
            divisor, unit = scale(getattr(statistics.spent, name), name)
            for i, curve in statistics.curves.items():
                x = [getattr(point, name) / divisor for point in curve]
                look = line_style(i)
                (handles[statistics.labels[i]],) = panel.plot(x, [point.loss for point in curve], **look)
                lower, upper = [p.loss - p.sd for p in curve], [p.loss + p.sd for p in curve]
                panel.fill_between(x, lower, upper, color=look["color"], alpha=0.15, linewidth=0)
            if statistics.base_loss is not None:
                line = panel.axhline(statistics.base_loss, color=INK, linewidth=1, linestyle=":")
                handles["base before training"] = line
            panel.set_xlabel(unit)
            panel.set_ylim(low, high)
            open_axes(panel)
        panels[0].set_ylabel("held-out loss (nats per token)")
        keys = [picture_label(name) for name in handles]
        figure.legend([*handles.values()], keys, loc="outside lower center", ncols=4, frameon=False)


def draw_forgetting(statistics: Statistics, png: Path) -> None:
    """Draws the loss on what was known against that on the new text: along training, and a curve for each method."""
    forgetting = statistics.forgetting
    frontiers = [found for found in forgetting.frontiers if found.has_curves]
    handles: dict[str, Any] = {}
    with picture(png, 520 + 480 * (1 + len(frontiers)), 650) as figure:
        first, *others = figure.subplots(1, 1 + len(frontiers), squeeze=False)[0]
        for i, line in forgetting.training.items():
            look = line_style(i)
            (handles[statistics.labels[i]],) = first.plot(line.learned, line.retained, **look)
            first.plot(line.learned[-1:], line.retained[-1:], "o", color=look["color"], markersize=5)
        frame_losses(first, "during training", forgetting.learned, forgetting.retained)
        for panel, found in zip(others, frontiers, strict=True):
            handles |= draw_frontier(panel, found)
        for panel in (first, *others):
            if forgetting.base is not None:
                handles["base before training"] = panel.axhline(forgetting.base, color=INK, linewidth=1, linestyle=":")
        first.set_ylabel("loss on what was known (nats per token)")
        keys = [picture_label(name) for name in handles]
        figure.legend([*handles.values()], keys, loc="outside lower center", ncols=4, frameon=False)


def draw_frontier(panel: Any, found: Frontier) -> dict[str, Any]:
    """Draws each method's trainings, its curve through the best of them, and rings around the best of all.

    Returns:
      What stands in the legend.
    """
    handles: dict[str, Any] = {}
    for name, spots in found.methods.items():
        look, curve = line_style(found.look(name)), found.curves[name]
        panel.plot([s.learned for s in spots], [s.retained for s in spots], "o", color=look["color"], markersize=4)
        (handles[name],) = panel.plot([s.learned for s in curve], [s.retained for s in curve], **look)
        for spot in spots:
            beside: dict[str, Any] = {"xytext": (6, 3), "textcoords": "offset points", "annotation_clip": True}
            panel.annotate(spot.label, (spot.learned, spot.retained), fontsize=8, color=look["color"], **beside)
    best = [s.learned for s in found.best], [s.retained for s in found.best]
    (handles["on the frontier"],) = panel.plot(*best, "o", color=INK, markersize=11, fillstyle="none")
    frame_losses(panel, found.title, found.learned, found.retained)
    return handles


def frame_losses(panel: Any, title: str, learned: LossRange, retained: LossRange) -> None:
    """Title and axes of a panel of one loss against the other."""
    panel.set_title(title, fontsize=11)
    panel.set_xlim(learned.low, learned.high)
    panel.set_ylim(retained.low, retained.high)
    panel.set_xlabel("loss on the new text (nats per token)")
    open_axes(panel)


def line_style(position: int) -> dict[str, Any]:
    """How matplotlib draws the outcome at a position; base is 0."""
    if position == 0:
        return {"color": INK, "linewidth": 2.5, "linestyle": "-"}
    colour, dashes = style(position)
    return {"color": PALETTE[colour], "linewidth": 1.8, "linestyle": (0, DASHES[dashes]) if DASHES[dashes] else "-"}


def picture_label(label: str) -> str:
    """A label that fits, and that matplotlib does not take for a formula."""
    label = " ".join(label.split())
    return (label if len(label) <= LABEL_LENGTH else label[: LABEL_LENGTH - 1] + "…").replace("$", r"\$")
