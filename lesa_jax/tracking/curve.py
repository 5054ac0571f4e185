"""loss.png: a run's losses and learning rate over the tokens seen."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lesa_jax.base.units import short
from lesa_jax.reports.figures import open_axes, picture

CURVE_SIZE = (1200, 700)  # pixels
CURVE_POINTS = 4000  # more than there are pixel columns; Agg gives up on noisy lines of a million points
HELD_OUT = {"eval_loss": ("evaluation", "eval"), "retain_loss": ("what was known", "retained")}
COLOURS = {"loss": "#a9c9e6", "smooth": "#1a5a9c", "eval": "#d9571c", "retained": "#5b8c3a", "rate": "#555555"}


def draw_curve(rows: Sequence[Mapping[str, Any]], png: Path) -> None:
    """Draws training and evaluation loss, and the learning rate below, over the tokens seen.

    Args:
      rows: as of `read_metrics`; none, or nulls only, give empty axes.
      png: the file, 1200 x 700 pixels; written beside and renamed.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # slow to import

    axis = "tokens" if any(row.get("tokens") is not None for row in rows) else "step"
    train_x, train_y = series(rows, axis, "loss")
    held_out = [(label, COLOURS[colour], *series(rows, axis, key)) for key, (label, colour) in HELD_OUT.items()]
    rate_x, rate_y = series(rows, axis, "learning_rate")
    smooth_y = smooth(train_y)

    with picture(png, *CURVE_SIZE) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
        # A single point has no line to be seen.
        alone = "o" if len(train_x) == 1 else None
        shown = thin(len(train_x))
        if len(train_x):
            x, y, mean = train_x[shown], train_y[shown], smooth_y[shown]
            top.plot(x, y, color=COLOURS["loss"], linewidth=0.9, label="training, each step")
            top.plot(x, mean, color=COLOURS["smooth"], linewidth=2.2, marker=alone, label="training, mean")
        marks: dict[str, Any] = {"marker": "o", "markersize": 8, "markeredgecolor": "white", "linestyle": ":"}
        for label, colour, x, y in held_out:
            if len(x):
                top.plot(x, y, color=colour, linewidth=1.4, label=label, zorder=3, **marks)
        evaluations = [y for *_, y in held_out]
        if len(train_x) or any(map(len, evaluations)):
            top.set_ylim(*loss_limits(train_y, *evaluations))
            top.legend(loc="upper right", frameon=False, fontsize=14)
        shown = thin(len(rate_x))
        bottom.plot(
            rate_x[shown], rate_y[shown], color=COLOURS["rate"], linewidth=1.6, marker="o" if len(rate_x) == 1 else None
        )
        if len(rate_y) and rate_y.max() > 0:
            bottom.set_ylim(0.0, 1.15 * rate_y.max())
            bottom.set_yticks([0.0, rate_y.max()])
        bottom.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:.2g}"))
        last = max([1.0, *(x[-1] for x in (train_x, *(x for _, _, x, _ in held_out), rate_x) if len(x))])
        bottom.set_xlim(-0.01 * last, 1.01 * last)  # points at the ends are not cut in half
        bottom.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        bottom.xaxis.set_major_formatter(FuncFormatter(lambda value, position: short(value)))
        bottom.set_xlabel("tokens seen" if axis == "tokens" else "step", fontsize=14)
        top.set_title(png.resolve().parent.name, fontsize=16, loc="left")
        top.set_ylabel("loss (nats per token)", fontsize=14)
        bottom.set_ylabel("learning\nrate", fontsize=14)
        for panel in (top, bottom):
            open_axes(panel)
            panel.tick_params(labelsize=13)
        figure.align_ylabels()


def series(
    rows: Sequence[Mapping[str, Any]], x: str, y: str
) -> tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]:
    """Two columns as numbers, of the rows that have both."""
    points = [(row[x], row[y]) for row in rows if row.get(x) is not None and row.get(y) is not None]
    columns = np.array(points, np.float64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def smooth(y: Float[np.ndarray, " _"]) -> Float[np.ndarray, " _"]:
    """Means over about 2 % of the run around each point, over fewer at its start, where the loss falls fast."""
    n = len(y)
    position = np.arange(n)
    reach = np.minimum(math.ceil(n / 100), position // 4)
    start, end = position - reach, np.minimum(position + reach + 1, n)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    return (sums[end] - sums[start]) / (end - start)


def thin(n: int) -> slice:
    """Every so manieth of n points, at most `CURVE_POINTS`."""
    return slice(None, None, max(1, math.ceil(n / CURVE_POINTS)))


def loss_limits(train: Float[np.ndarray, " _"], *evaluations: Float[np.ndarray, " _"]) -> tuple[float, float]:
    """Ends of the loss axis, for what is there of training and evaluation losses.

    One step in a hundred may lie above the upper end, so that the first ones do not flatten all others. The first
    evaluation, of a model that is not trained yet, is shown unless that would more than double the axis.
    """
    ends = [*np.quantile(train, [0.002, 0.99])] if len(train) else []
    ends += [value for losses in evaluations for value in losses[1 if len(train) else 0 :]]
    low, high = float(min(ends)), float(max(ends))
    for first in (float(losses[0]) for losses in evaluations if len(losses)):
        if low <= first + (high - low) and first <= high + (high - low):
            low, high = min(low, first), max(high, first)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin
