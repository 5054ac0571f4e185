"""The pictures of a comparison: perplexities before training, and losses during it."""

from pathlib import Path
from typing import Any

from lesa_jax.base.files import replace_file
from lesa_jax.comparison.result import Comparison
from lesa_jax.comparison.statistics import (
    base_loss,
    initial_points,
    is_logarithmic,
    labels,
    largest,
    loss_range,
    mean_curve,
)
from lesa_jax.reports.charts import UNITS, scale
from lesa_jax.reports.palette import DASHES, DPI, GRID, INK, PALETTE, style

LABEL_LENGTH = 44  # characters of a method's name in pictures


def picture_label(label: str) -> str:
    """A label that fits, and that matplotlib does not take for a formula."""
    label = " ".join(label.split())
    return (label if len(label) <= LABEL_LENGTH else label[: LABEL_LENGTH - 1] + "…").replace("$", r"\$")


def draw_initial(comparison: Comparison, png: Path) -> None:
    """Draws a dot for each method's initial perplexity, a bar from lowest to highest seed, and base as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    points = initial_points(comparison)
    names = labels(comparison)
    figure = Figure(figsize=(10, 1.2 + 0.32 * max(3, len(points))), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    for height, (i, mean) in enumerate(points):
        values = comparison.outcomes[i].initial
        colour = INK if i == 0 else PALETTE[0]
        axes.plot([min(values), max(values)], [height, height], color=colour, linewidth=2.5, alpha=0.5)
        axes.plot([mean], [height], "o", color=colour, markersize=8)
        axes.annotate(
            f"{mean:.2f}", (max(values), height), (8, 0), textcoords="offset points", va="center", fontsize=10
        )
        if i == 0:
            axes.axvline(mean, color=INK, linewidth=1, linestyle=":")
    if is_logarithmic([mean for _, mean in points]):
        axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.set_yticks(range(len(points)), [picture_label(names[i]) for i, _ in points])
    axes.invert_yaxis()
    axes.set_xlabel("perplexity before training (lower is better)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    # Without the version of matplotlib the same comparison gives the same bytes for longer.
    replace_file(png, lambda beside: canvas.print_figure(beside, format="png", metadata={"Software": None}))


def draw_curves(comparison: Comparison, png: Path) -> None:
    """Draws mean held-out loss against tokens, FLOPs and seconds, with bands of one standard deviation over seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.5), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(UNITS), sharey=True)
    low, high, _ = loss_range(comparison)
    names, handles = labels(comparison), {}
    target = base_loss(comparison)
    for panel, name in zip(panels, UNITS, strict=True):
        divisor, unit = scale(largest(comparison, name), name)
        for i, outcome in enumerate(comparison.outcomes):
            curve = mean_curve(outcome.curves)
            if len(curve) < 2:
                continue
            colour, dashes = style(i)
            x = [getattr(point, name) / divisor for point, _ in curve]
            y = [point.loss for point, _ in curve]
            look: dict[str, Any] = {"color": INK if i == 0 else PALETTE[colour], "linewidth": 2.5 if i == 0 else 1.8}
            look["linestyle"] = (0, DASHES[dashes]) if i and DASHES[dashes] else "-"
            (handles[names[i]],) = panel.plot(x, y, **look)
            bounds = zip(*((point.loss - sd, point.loss + sd) for point, sd in curve), strict=True)
            panel.fill_between(x, *map(list, bounds), color=look["color"], alpha=0.15, linewidth=0)
        if target is not None:
            handles["base before training"] = panel.axhline(target, color=INK, linewidth=1, linestyle=":")
        panel.set_xlabel(unit)
        panel.set_ylim(low, high)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color=GRID, linewidth=0.8)
        panel.set_axisbelow(True)
    panels[0].set_ylabel("held-out loss (nats per token)")
    keys = [picture_label(name) for name in handles]
    figure.legend([*handles.values()], keys, loc="outside lower center", ncols=4, frameon=False)
    replace_file(png, lambda beside: canvas.print_figure(beside, format="png", metadata={"Software": None}))
