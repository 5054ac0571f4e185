"""What a comparison of growth methods leaves for its reader: table.json, table.md, pictures and report.html.

The same comparison gives the same files. A number that was not measured is null or a dash, never a guess.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from lesa_jax.run_log import finite
from lesa_jax.writer import replace_file, write_json, write_text

TABLE_JSON, TABLE_MD, REPORT = "table.json", "table.md", "report.html"
INITIAL, CURVES = "initial.png", "curves.png"

# Two measurements of one model differ by this much because sums are rounded; of losses in nats, and relative ones of
# perplexities.
ROUNDING = 1e-5

DPI = 100
INK, GRID = "#1c2126", "#e4e4e4"
LABEL_LENGTH = 44  # characters of a method's name in pictures
LOG_RATIO = 10.0  # of the largest to the smallest perplexity; with more the axis is logarithmic
# Okabe and Ito's colours, which colour-blind readers tell apart; brown and violet for yellow, too light, and black.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a5c00", "#5b3fa8")
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2.5), (1.5, 2), (8, 2, 1.5, 2))  # on, off, ..; () is a full line

UNITS = {
    "tokens": ((1e9, "billion tokens"), (1e6, "million tokens"), (1e3, "thousand tokens"), (1.0, "tokens")),
    "flops": ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1.0, "FLOP")),
    "seconds": ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds")),
}

Row = dict[str, Any]
MeanCurve = tuple[tuple["Point", float], ...]  # the mean over seeds and the standard deviation of its loss, in nats


@dataclass(frozen=True)
class Point:
    """One evaluation during training: what was spent until then, and the held-out loss in nats per token."""

    tokens: int
    flops: float
    seconds: float
    loss: float


@dataclass(frozen=True)
class Outcome:
    """One row of the comparison.

    Attributes:
      method: name of the method; "base" for the original model.
      placement: where the new layers are ("top", "even", "3,5,7", "stacked"); "-" for base.
      layers: of the model.
      new_layers: positions of the new layers.
      parameters: of the model.
      new_parameters: those in new layers.
      initial: perplexity before training, one per seed; methods without randomness have one.
      curves: one per seed, from 0 tokens on; empty if not trained. A base that was not trained may have one point.
      step_flops: operations per trained token, forward and backward; None if not trained or not known.
      backward_depth: layers that the backward pass goes through.
      error: why the row failed; everything measured may then be missing.
    """

    method: str
    placement: str
    layers: int
    new_layers: tuple[int, ...]
    parameters: int
    new_parameters: int
    initial: tuple[float, ...] = ()
    curves: tuple[tuple[Point, ...], ...] = ()
    step_flops: float | None = None
    backward_depth: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Comparison:
    """All that was measured.

    Attributes:
      model: the original model.
      text: held-out text that perplexities are measured on.
      protocol: "corpus" or "line" (`lesa_jax.metrics`).
      sequence_length: tokens per window, or at most per line.
      train_data: text that was trained on; None if nothing was trained.
      train_tokens: that each method was trained on.
      trained: which weights were trained, in words.
      seeds: all of them.
      outcomes: the rows; the first is base.
      command: that was run.
      versions: of the programs, by name.
    """

    model: str
    text: str
    protocol: str
    sequence_length: int
    train_data: str | None
    train_tokens: int | None
    trained: str | None
    seeds: tuple[int, ...]
    outcomes: tuple[Outcome, ...]
    command: str
    versions: Mapping[str, str]


def write_report(comparison: Comparison, folder: Path) -> None:
    """Writes table.json, table.md, initial.png, curves.png (if something was trained) and report.html into a folder.

    Args:
      comparison: with base as its first outcome.
      folder: made where it is missing; files of these names are replaced, and a curves.png that is no longer true goes.
    """
    # These need the types of this module.
    from lesa_jax.comparison_html import page
    from lesa_jax.comparison_table import markdown

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / TABLE_JSON, rows(comparison))
    write_text(folder / TABLE_MD, markdown(comparison))
    draw_initial(comparison, folder / INITIAL)
    if is_trained(comparison):
        draw_curves(comparison, folder / CURVES)
    else:
        (folder / CURVES).unlink(missing_ok=True)
    write_text(folder / REPORT, page(comparison))


def rows(comparison: Comparison) -> list[Row]:
    """The rows of table.json, which all numbers of the other files are taken from; every number in them is finite."""
    target = base_loss(comparison)
    return [row(outcome, comparison.outcomes[0], target) for outcome in comparison.outcomes]


def row(outcome: Outcome, base: Outcome, target: float | None) -> Row:
    """One row of table.json.

    Args:
      outcome: what was measured.
      base: the outcome of the original model.
      target: base's loss before training, in nats, if it is known.
    """
    start, start_sd = spread(outcome.initial)
    base_start, _ = spread(base.initial)
    ends = shared_points(outcome.curves)[-1:]
    last = [point for point in ends[0] if point.tokens > 0] if ends else []
    perplexities = [perplexity(point.loss) for point in last]
    end, end_sd = spread(perplexities)
    reached = crossing(mean_curve(outcome.curves), target) if last else None
    errors = [outcome.error] if outcome.error else []
    if outcome.initial and start is None:
        errors.append("the perplexity before training is not finite")
    if last and end is None:
        errors.append(f"the loss after {last[0].tokens} tokens is not finite")
    result: Row = {
        "method": outcome.method,
        "placement": outcome.placement,
        "layers": outcome.layers,
        "new_layers": list(outcome.new_layers),
        "parameters": outcome.parameters,
        "new_parameters": outcome.new_parameters,
        "initial_perplexity": start,
        "initial_sd": start_sd,
        "initial_over_base": start / base_start if start is not None and base_start else None,
        "tokens": last[0].tokens if last else None,
        "perplexity": end,
        "perplexity_sd": end_sd,
        "tokens_to_base": reached.tokens if reached else None,
        "flops_to_base": finite(reached.flops) if reached else None,
        "seconds_to_base": finite(reached.seconds) if reached else None,
        "step_flops": finite(outcome.step_flops),
    }
    if base.step_flops:
        cost = outcome.step_flops
        result["step_cost_over_base"] = None if cost is None else finite(cost / base.step_flops)
    result["backward_depth"] = outcome.backward_depth
    result["seeds"] = len(last) or len(outcome.initial)
    result["error"] = "; ".join(errors) or None
    return result


def spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; None for what does not exist, or is not finite."""
    if not values or not all(map(math.isfinite, values)):
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def perplexity(loss: float) -> float:
    """exp(nats); infinity for a loss that is too large or not a number."""
    return math.exp(loss) if loss < 700.0 else math.inf


def shared_points(curves: Sequence[Sequence[Point]]) -> list[tuple[Point, ...]]:
    """For each evaluation that all seeds have at the same tokens, a point of each seed."""
    evaluations = zip(*(curve for curve in curves if curve), strict=False)
    return list(takewhile(lambda points: len({point.tokens for point in points}) == 1, evaluations))


def mean_curve(curves: Sequence[Sequence[Point]]) -> MeanCurve:
    """Means over seeds, as far as all losses are finite; the standard deviation is 0 for one seed."""
    means = []
    for points in shared_points(curves):
        loss, sd = spread([point.loss for point in points])
        if loss is None:
            break
        flops, seconds = (statistics.fmean(getattr(p, name) for p in points) for name in ("flops", "seconds"))
        means.append((Point(points[0].tokens, flops, seconds, loss), sd or 0.0))
    return tuple(means)


def base_loss(comparison: Comparison) -> float | None:
    """Base's loss in nats before training: measured with the curves, or of its perplexity; None if unknown."""
    base = comparison.outcomes[0]
    measured = mean_curve(base.curves)
    if measured and measured[0][0].tokens == 0:
        return measured[0][0].loss
    start, _ = spread(base.initial)
    # A mean of lines' perplexities is not the exponential of a loss per token.
    return math.log(start) if start and not comparison.protocol.startswith("line") else None


class Crossing(NamedTuple):
    """What was spent until a curve reached a loss, which may be between evaluations."""

    tokens: float
    flops: float
    seconds: float


def crossing(curve: MeanCurve, target: float | None) -> Crossing | None:
    """Where the curve first is at the target or below, linear in loss between evaluations; None if it never is."""
    if target is None or not curve:
        return None
    before = curve[0][0]
    if before.loss <= target + ROUNDING:
        return Crossing(float(before.tokens), before.flops, before.seconds)
    for after, _ in curve[1:]:
        if after.loss <= target:
            part = (before.loss - target) / (before.loss - after.loss)
            return Crossing(
                *(getattr(before, name) + part * (getattr(after, name) - getattr(before, name)) for name in UNITS)
            )
        before = after
    return None


def is_trained(comparison: Comparison) -> bool:
    return any(point.tokens > 0 for outcome in comparison.outcomes for curve in outcome.curves for point in curve)


def labels(comparison: Comparison) -> list[str]:
    """A name for each outcome: the method; with placement, then layers too, where that is there twice."""
    forms = [
        (o.method, f"{o.method} ({o.placement})", f"{o.method} ({o.placement}, {o.layers} layers)")
        for o in comparison.outcomes
    ]
    counts = [Counter(names) for names in zip(*forms, strict=True)]
    return [
        next((name for name, count in zip(names, counts, strict=True) if count[name] == 1), names[-1])
        for names in forms
    ]


def scale(largest: float, name: str) -> tuple[float, str]:
    """What to divide an axis by, and its unit."""
    return next((unit for unit in UNITS[name] if largest >= unit[0]), UNITS[name][-1])


def style(position: int) -> tuple[int, int]:
    """Colour and dashes of the outcome at this position after base, which has neither."""
    return (position - 1) % len(PALETTE), (position - 1) // len(PALETTE) % len(DASHES)


def loss_range(comparison: Comparison) -> tuple[float, float, list[int]]:
    """Ends of the loss axis in nats, and the positions of the outcomes whose curves begin or stay above it.

    Every end is shown, unless it is far above most, and so is every start that does not more than double the axis.
    """
    curves = {i: curve for i, o in enumerate(comparison.outcomes) if len(curve := mean_curve(o.curves)) > 1}
    target = base_loss(comparison)
    ends = [curve[-1][0].loss for curve in curves.values()] + ([] if target is None else [target])
    if not ends:
        return 0.0, 1.0, []
    low = min([*ends, *(point.loss for curve in curves.values() for point, _ in curve)])
    far = low + max(1.0, 4 * (statistics.median(ends) - low))
    high = max(end for end in ends if end <= far)
    starts = [curve[0][0].loss for curve in curves.values()]
    reach = max(2 * high - low, high + 0.02)
    high = max([high, *(start for start in starts if start <= reach)])
    margin = 0.05 * (high - low) or 0.05
    above = [i for i, curve in curves.items() if curve[0][0].loss > high + margin]
    return low - margin, high + margin, above


def initial_points(comparison: Comparison) -> list[tuple[int, float]]:
    """Position and mean of each outcome that has a finite initial perplexity, the lowest first."""
    means = [(i, spread(outcome.initial)[0]) for i, outcome in enumerate(comparison.outcomes)]
    return sorted(((i, mean) for i, mean in means if mean is not None), key=lambda item: (round(item[1], 4), item[0]))


def is_logarithmic(values: Sequence[float]) -> bool:
    return bool(values) and max(values) > LOG_RATIO * min(values) > 0


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


def largest(comparison: Comparison, name: str) -> float:
    """End of an axis: the largest tokens, flops or seconds of any mean curve."""
    curves = (mean_curve(outcome.curves) for outcome in comparison.outcomes)
    return float(max((getattr(point, name) for curve in curves for point, _ in curve), default=1.0))
