"""Table and picture of a frontier: what is learned against what is forgotten, from the runs of frontier.py.

Command:   python experiments/recipe/frontier_report.py --runs work/runs --output experiments/results/frontier_smollm2
Run time:  a second.
Expected:  OUTPUT.md, OUTPUT.png and OUTPUT.csv, a line for every run of the latter.

The yardstick is the published method that learns most, at its own best rate. "As good" is to be at its end, or better,
in both: the new domain's loss and the old domain's. What a recipe needs for that, at whichever of its rates, is given
in operations, as a share of the yardstick's.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from lesa_jax.reports.figures import open_axes, picture
from lesa_jax.reports.palette import DASHES, PALETTE, style

PUBLISHED = ("LLaMA Pro", "SOLAR", "LESA", "OpT-DeUS")  # as their papers train them, but for the tuned rate
COLUMNS = ("recipe", "rate", "seed", "flops_per_token", "tokens", "new_loss", "old_loss")


@dataclass(frozen=True)
class Settings:
    """Where the runs are, and where the report goes."""

    runs: Path
    output: Path
    caption: str = ""


@dataclass(frozen=True)
class Curve:
    """The mean over seeds of one recipe at one rate: operations, and losses of both texts, at each evaluation."""

    recipe: str
    rate: float
    seeds: int
    flops_per_token: float
    flops: tuple[float, ...]
    new: tuple[float, ...]
    old: tuple[float, ...]
    spread: float
    error: str | None = None


def main(settings: Settings) -> None:
    runs = [json.loads(file.read_text()) for file in sorted(settings.runs.glob("*.json"))]
    curves = mean_curves(runs)
    best = {
        name: min((curve for curve in found if curve.error is None), key=lambda curve: curve.new[-1])
        for name, found in curves.items()
        if any(curve.error is None for curve in found)
    }
    published = [best[name] for name in PUBLISHED if name in best]
    yardstick = min(published or best.values(), key=lambda curve: curve.new[-1])
    text = [settings.caption] if settings.caption else []
    text += [table(curves, best, yardstick), "Every rate, perplexity of the new text / of the old one:", rates(curves)]
    settings.output.with_suffix(".md").write_text("\n\n".join(text) + "\n")
    write_csv(runs, settings.output.with_suffix(".csv"))
    draw(curves, best, settings.output.with_suffix(".png"))
    print(text[-3])


def mean_curves(runs: Sequence[Mapping]) -> dict[str, list[Curve]]:
    """By recipe, from low rates to high ones; the best end of the new text first among the recipes."""
    grouped: dict[tuple[str, float], list[Mapping]] = {}
    for run in runs:
        grouped.setdefault((run["recipe"], run["rate"]), []).append(run)
    curves: dict[str, list[Curve]] = {}
    for (recipe, rate), group in sorted(grouped.items(), key=lambda item: item[0][1]):
        failed = next((run["error"] for run in group if run["error"]), None)
        if failed:
            curve = Curve(recipe, rate, len(group), math.nan, (), (), (), math.nan, failed)
        else:
            cost = group[0]["cost"]["total"]
            losses = np.array([[[p["eval_loss"], p["retain_loss"]] for p in run["points"]] for run in group])
            new, old = losses.mean(axis=0).T
            flops = tuple(point["tokens"] * cost for point in group[0]["points"])
            spread = float(losses[:, -1, 0].std(ddof=1)) if len(group) > 1 else math.nan
            curve = Curve(recipe, rate, len(group), cost, flops, tuple(new), tuple(old), spread)
        curves.setdefault(recipe, []).append(curve)

    def end(name: str) -> float:
        return min((curve.new[-1] for curve in curves[name] if curve.new), default=math.inf)

    return {name: curves[name] for name in sorted(curves, key=end)}


def table(curves: Mapping[str, Sequence[Curve]], best: Mapping[str, Curve], yardstick: Curve) -> str:
    """A line a recipe, at its best rate."""
    header = [
        "recipe", "rate", "seeds", "GFLOP a token", "new text, before", "after", "old text, before", "after",
        f"operations to be as good as {yardstick.recipe}",
    ]  # fmt: skip
    lines = [header, ["---"] * len(header)]
    for name, curve in best.items():
        sd = "" if math.isnan(curve.spread) else f" ± {math.exp(curve.new[-1]) * curve.spread:.2f}"
        share = as_good(curves[name], yardstick)
        lines.append(
            [
                name,
                f"{curve.rate:g}",
                str(curve.seeds),
                f"{curve.flops_per_token / 1e9:.3g}",
                f"{math.exp(curve.new[0]):.2f}",
                f"{math.exp(curve.new[-1]):.2f}{sd}",
                f"{math.exp(curve.old[0]):.2f}",
                f"{math.exp(curve.old[-1]):.2f}",
                "never" if share is None else f"{share:.2f}",
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def as_good(curves: Sequence[Curve], yardstick: Curve) -> float | None:
    """The least operations, of the yardstick's, at which one of the curves is as good in both; None if none is."""
    found = [
        flops
        for curve in curves
        if curve.error is None
        for flops in [both_reached(curve, yardstick.new[-1], yardstick.old[-1])]
        if flops is not None
    ]
    return min(found) / yardstick.flops[-1] if found else None


def both_reached(curve: Curve, new: float, old: float) -> float | None:
    """Operations at which a curve, straight between its points, is first at or below both losses."""
    shares = np.linspace(0, 1, 201)
    for left in range(len(curve.flops) - 1):
        flops, news, olds = (
            values[left] + shares * (values[left + 1] - values[left]) for values in (curve.flops, curve.new, curve.old)
        )
        good = (news <= new + 1e-9) & (olds <= old + 1e-9)
        if good.any():
            return float(flops[good.argmax()])
    return None


def rates(curves: Mapping[str, Sequence[Curve]]) -> str:
    """All ends."""
    tried = sorted({curve.rate for found in curves.values() for curve in found})
    lines = [["recipe", *(f"{rate:g}" for rate in tried)], ["---"] * (len(tried) + 1)]
    for name, found in curves.items():
        ends = {
            curve.rate: "diverged" if curve.error else f"{math.exp(curve.new[-1]):.2f} / {math.exp(curve.old[-1]):.2f}"
            for curve in found
        }
        lines.append([name, *(ends.get(rate, "") for rate in tried)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write_csv(runs: Sequence[Mapping], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for run in runs:
            for point in run["points"]:
                cost = run["cost"].get("total")
                row = [run["recipe"], run["rate"], run["seed"], cost, *(point[k] for k in ("tokens", "eval_loss"))]
                writer.writerow([*row, point["retain_loss"]])


def draw(curves: Mapping[str, Sequence[Curve]], best: Mapping[str, Curve], path: Path) -> None:
    """Left: the ends of all rates, a curve a recipe. Right: the best rate's curve over operations."""
    unit = 10.0 ** (3 * math.floor(math.log10(max(curve.flops[-1] for curve in best.values())) / 3))
    with picture(path, 1500, 750) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for place, (name, found) in enumerate(curves.items(), 1):
            colour, dash = style(place)
            ends = [curve for curve in found if curve.error is None]
            look = {"color": PALETTE[colour], "dashes": DASHES[dash], "marker": "o", "markersize": 4, "linewidth": 1.5}
            old, new = ([math.exp(getattr(curve, text)[-1]) for curve in ends] for text in ("old", "new"))
            left.plot(old, new, label=name, **look)
            if name in best:
                curve = best[name]
                right.plot([flops / unit for flops in curve.flops], [math.exp(loss) for loss in curve.new], **look)
        for axes in (left, right):
            axes.set_yscale("log")
            open_axes(axes)
        left.set_xscale("log")
        # What starts from the original's function starts lowest; what ends far beyond is not in the picture.
        new, old = (math.exp(min(getattr(curve, text)[0] for curve in best.values())) for text in ("new", "old"))
        ends = [curve for found in curves.values() for curve in found if curve.error is None]
        least, least_old = (math.exp(min(getattr(curve, text)[-1] for curve in ends)) for text in ("new", "old"))
        most_old = math.exp(max(curve.old[-1] for curve in best.values()))
        left.axvline(old, color="grey", linewidth=1, linestyle=":")
        left.set_ylim(least * 0.98, new * 1.02)
        left.set_xlim(min(old, least_old) * 0.98, most_old * 1.05)
        for axis in (left.xaxis, left.yaxis):
            axis.set_major_formatter("{x:.3g}")
            axis.set_minor_formatter("{x:.3g}")
        left.set_xlabel("perplexity of the old text: further right, more is forgotten")
        left.set_ylabel("perplexity of the new text: further down, more is learned")
        right.set_xlabel(f"operations, in 10^{math.log10(unit):.0f}, at the rate that ends lowest")
        figure.legend(loc="outside lower center", ncols=4, frameon=False)


if __name__ == "__main__":
    main(tyro.cli(Settings))
