"""The charts of an analysis as data: which lines each one has. The page and the pictures draw the same ones."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from lesa_jax.analysis.blocks import best_blocks
from lesa_jax.analysis.effective import mean_effects
from lesa_jax.analysis.result import Analysis
from lesa_jax.analysis.weights import KindMeasures
from lesa_jax.reports.palette import PALETTE

# Title of a chart, and what its lines are: names, and attributes of a layer.
OF_LAYERS: Mapping[str, Mapping[str, str]] = {
    "Angles, radians": {"by which a layer turns the stream": "angle", "between its update and the next": "update_angle",
                        "to the end": "angle_to_end"},
    "Added, over the stream": {"by attention": "attention", "by the feed-forward network": "feed_forward",
                               "by the layer": "contribution"},
    "Cosine of what is added with the stream": {"attention": "attention_cosine", "feed-forward network":
                                                "feed_forward_cosine", "layer": "layer_cosine"},
    "Way from embedding to end": {"share of it that is behind": "projection",
                                  "likeliest tokens that are the model's": "lens_overlap"},
    "Prediction from here, nats": {"divergence from the model's": "lens_kl",
                                   "loss through the last layer": "shortcut_loss"},
}  # fmt: skip
MISSED, FUTURE = "When it is passed by", "Change of later layers, mean"  # further charts over layers


@dataclass(frozen=True)
class Line:
    """Points of a chart; `position` says how they look (`reports.palette.style`)."""

    name: str
    position: int
    x: Sequence[int]
    y: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """A chart.

    Attributes:
      title: above it.
      unit: of what it goes along.
      lines: at least one, each with a value or more; those of base look like the grown model's in other dashes.
      marked: where new layers stand.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    marked: tuple[int, ...] = ()

    @property
    def across(self) -> tuple[int, int]:
        """The ends of the horizontal axis."""
        x = [value for line in self.lines for value in line.x]
        return min(x), max(max(x), min(x) + 1)

    @property
    def upright(self) -> tuple[float, float]:
        """The ends of the vertical one, with a margin; beyond them lie single values that would flatten all else."""
        low, high = self.fence
        y = [value for line in self.lines for value in line.y if low <= value <= high]
        margin = 0.05 * (max(y) - min(y)) or 0.05
        return min(y) - margin, max(y) + margin

    @property
    def fence(self) -> tuple[float, float]:
        """Between these lies what is drawn: of any line the middle four fifths, and three times their range around."""
        middles = [np.quantile(line.y, [0.1, 0.9]).tolist() for line in self.lines]
        reaches = [3 * (high - low) if high > low else math.inf for low, high in middles]
        lows, highs = zip(*((low - r, high + r) for (low, high), r in zip(middles, reaches, strict=True)), strict=True)
        return min(lows), max(highs)

    @property
    def beyond(self) -> str:
        """Says what lies outside; empty where nothing does."""
        low, high = self.fence
        outside = [
            f"{line.name} ({y:.3g} at {x})"
            for line in self.lines
            for x, y in zip(line.x, line.y, strict=True)
            if not low <= y <= high
        ]
        return f"Outside: {', '.join(outside)}." if outside else ""


def text_panels(found: Analysis) -> list[Panel]:
    """What was measured on the text. Lines of base stand at the places that its layers have in the grown model."""
    charts = {title: layer_values(found, title) for title in [*OF_LAYERS, MISSED, FUTURE]}
    base = {title: layer_values(found.base, title) for title in charts} if found.base is not None else {}
    panels = []
    for title, values in charts.items():
        lines = lines_of(values, range(found.count))
        if base:
            lines += lines_of({f"{name}, base": line for name, line in base[title].items()}, found.old, len(PALETTE))
        panels.append(Panel(title, "layer", tuple(lines), found.new))
    return [*panels, *block_panels(found)]


def layer_values(found: Analysis, title: str) -> dict[str, Sequence[float | None]]:
    """The lines of a chart, a value for each layer."""
    measured = found.measured
    if title == MISSED:
        return {
            "loss gained, nats": measured.importance.tolist(),
            "effect on the prediction": measured.effects.output.tolist(),
            "influence": [layer.block_influence for layer in measured.layers],
        }
    if title == FUTURE:
        return {"without it at earlier tokens": mean_effects(measured.effects.layers).tolist()}
    return {name: [getattr(layer, field) for layer in measured.layers] for name, field in OF_LAYERS[title].items()}


def block_panels(found: Analysis) -> list[Panel]:
    """How far the best block of each size turns the stream; none for a model of one layer."""
    if found.count == 1:
        return []
    lines = lines_of({"of the model": best_distances(found)}, range(1, found.count + 1))
    if found.base is not None:
        lines += lines_of({"of base": best_distances(found.base)}, range(1, found.base.count + 1), len(PALETTE))
    return [Panel("Best block to drop: distance, half turns", "layers of the block", tuple(lines))]


def best_distances(found: Analysis) -> list[float]:
    return [block.distance for block in best_blocks(found.measured.blocks)]


def weight_panels(found: Analysis) -> list[Panel]:
    """What the matrices are like, a line for each kind; base is left out, whose matrices the grown model has."""
    charts: dict[str, Callable[[KindMeasures], Sequence[float]]] = {
        "Frobenius norm": lambda kind: kind.norm,
        "Stable rank": lambda kind: kind.stable_rank,
        "Largest singular value": lambda kind: [values[0] for values in kind.leading],
    }
    panels = []
    for title, values in charts.items():
        each = [lines_of({kind.kind: values(kind)}, kind.layers, after) for after, kind in enumerate(found.weights)]
        panels.append(Panel(title, "layer", tuple(chain.from_iterable(each)), found.new))
    return [panel for panel in panels if panel.lines]


def lines_of(values: Mapping[str, Sequence[float | None]], x: Sequence[int], after: int = 0) -> list[Line]:
    """Lines through what is known, in the looks that come after so many others."""
    found = []
    for position, (name, line) in enumerate(values.items(), after + 1):
        points = [(at, y) for at, y in zip(x, line, strict=True) if y is not None and math.isfinite(y)]
        if points:
            found.append(Line(name, position, [at for at, _ in points], [y for _, y in points]))
    return found
