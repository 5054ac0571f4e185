"""Table and picture of a convergence experiment, from the CSV file that `convergence.py` keeps."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

COLUMNS = 7  # of perplexities in the table


@dataclass(frozen=True)
class Curve:
    """One run: held-out losses by tokens, and the loss on the other text at the end."""

    seed: int
    rate: float
    budget: int
    mflop: float
    points: tuple[tuple[int, float], ...]
    other: float | None


def write_report(path: Path, caption: str) -> None:
    """Writes `path` with .md and .png in place of .csv."""
    curves = read_curves(path)
    base = curves.pop("base")[0]
    budget = max(curve.budget for runs in curves.values() for curve in runs)
    main = {method: [run for run in runs if run.budget == budget] for method, runs in curves.items()}
    main = {method: runs for method, runs in main.items() if runs}
    sweep = {method: [run for run in runs if run.budget < budget] for method, runs in curves.items()}
    parts = [caption]
    if any(sweep.values()):
        parts += [main_table(main, base), "Learning rates, perplexity at the end of the short runs that chose them:"]
        parts.append(sweep_table(sweep))
    else:
        parts.append(main_table(main, base))
    path.with_suffix(".md").write_text("\n\n".join(parts) + "\n")
    draw(main, base, path.with_suffix(".png"))


def read_curves(path: Path) -> dict[str, list[Curve]]:
    """The runs of each method."""
    grouped: dict[tuple[str, ...], list[dict[str, str]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            grouped.setdefault((row["method"], row["rate"], row["seed"], row["budget"]), []).append(row)
    curves: dict[str, list[Curve]] = {}
    for (method, rate, seed, budget), rows in grouped.items():
        points = tuple((int(row["tokens"]), float(row["eval_loss"])) for row in rows)
        other = rows[-1]["other_loss"]
        curve = Curve(
            int(seed), float(rate), int(budget), float(rows[0]["mflop"]), points, float(other) if other else None
        )
        curves.setdefault(method, []).append(curve)
    return curves


def main_table(main: Mapping[str, Sequence[Curve]], base: Curve) -> str:
    """A line a method; perplexities at some of the evaluations, which all runs share, and at the end of each."""
    shortest = min((len(run.points) for runs in main.values() for run in runs), default=1)
    marks = sorted({round(i * (shortest - 1) / (COLUMNS - 1)) for i in range(COLUMNS)})
    tokens = [next(iter(main.values()))[0].points[mark][0] for mark in marks[:-1]] if main else []
    header = [
        "start",
        "seeds",
        "rate",
        "MFLOP a token",
        *(f"{count / 1e3:.0f}k" for count in tokens),
        "end",
        "other text",
    ]
    lines = [header, ["---"] * len(header)]
    lines.append(
        ["base", "", "", "", *([f"{math.exp(base.points[0][1]):.2f}"] + [""] * len(tokens)), spread([base.other])]
    )
    for method, runs in main.items():
        cells = [method, str(len(runs)), f"{runs[0].rate:g}", f"{runs[0].mflop:.0f}"]
        cells += [spread([run.points[mark][1] for run in runs]) for mark in marks[:-1]]
        cells += [spread([run.points[-1][1] for run in runs]), spread([run.other for run in runs])]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def sweep_table(sweep: Mapping[str, Sequence[Curve]]) -> str:
    rates = sorted({run.rate for runs in sweep.values() for run in runs})
    lines = [["start", *(f"{rate:g}" for rate in rates)], ["---"] * (len(rates) + 1)]
    for method, runs in sweep.items():
        ends = {run.rate: run.points[-1][1] for run in runs}
        lines.append([method, *(f"{math.exp(ends[rate]):.2f}" if rate in ends else "" for rate in rates)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def spread(losses: Sequence[float | None]) -> str:
    """Perplexity of each run: their mean, and the standard deviation if there are several."""
    values = [math.exp(loss) for loss in losses if loss is not None]
    if not values:
        return ""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.2f}"
    return f"{mean:.2f} +- {math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)):.2f}"


def draw(main: Mapping[str, Sequence[Curve]], base: Curve, path: Path) -> None:
    """Mean held-out loss of each method, against tokens and against operations."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for method, runs in main.items():
        shared = min(len(run.points) for run in runs)
        tokens = [tokens for tokens, _ in runs[0].points[:shared]]
        means = [sum(run.points[i][1] for run in runs) / len(runs) for i in range(shared)]
        left.plot(tokens, means, marker=".", label=method)
        right.plot([count * runs[0].mflop * 1e6 for count in tokens], means, marker=".", label=method)
    left.set_xlabel("tokens trained")
    right.set_xlabel("operations")
    left.set_ylabel("held-out loss, nats a token")
    for axes in (left, right):
        axes.axhline(base.points[0][1], color="grey", linewidth=1, linestyle=":", label="base")
        axes.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False)
    FigureCanvasAgg(figure).print_png(str(path))
