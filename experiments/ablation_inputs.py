"""What LESA's prediction is made from: SVD or raw weights, whose norm weights, adjacent or two-apart inputs; controls.

Command:   python experiments/ablation_inputs.py --model books16 --text books-val.txt --characters 40000
Run time:  17 minutes on 2 CPU cores shared with much other work (load 11).
Expected:  experiments/results/ablation_inputs_books16.csv and .png; verdicts in experiments/README.md.

Eight new layers in the top gaps, no training after growth. Predictors learn from samples whose two inputs are two
layers apart (l-1 and l+1); a new layer in the gap between g and g+1 then gets adjacent inputs (g, g+1), as published.
The two-apart variants ask for layer g ("below", inputs g-1 and g+1), for layer g+1 ("above", g and g+2; in the last gap
there is no g+2, and "below" stands in), and for the mean of these two. Controls: zero matrices and silenced copies,
which both must give the base's perplexity; averages and plain copies; Gaussian matrices with the norms of LESA's.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from ablation import (
    NormSource,
    Source,
    against,
    averages,
    base,
    copies,
    frobenius,
    gaussian_like,
    grow,
    load_subject,
    measure,
    neighbour_norms,
    new_layers,
    norm_matched,
    raw_bases,
    streams_at,
    svd_bases,
    top_gaps,
    weight_kinds,
    write_csv,
)
from ablation_fit import Member, fit_grid, member, predicted_matrices

from lesa_jax.plan import insert
from lesa_jax.svd import LayerSVD

Matrices = Mapping[str, Any]
SOURCES: tuple[NormSource, ...] = ("first", "previous", "next", "mean")


@dataclass(frozen=True)
class Settings(Source):
    seed: int = 0


@dataclass(frozen=True)
class Variant:
    """New matrices, whose norm weights go with them, and whether the new layers' outputs are zeroed."""

    table: str
    name: str
    matrices: Matrices
    norms: NormSource = "first"
    silent: bool = False


def two_apart(
    bases: Mapping[str, LayerSVD], fits: Mapping[str, Any], gaps: tuple[int, ...], depth: int
) -> list[Matrices]:
    """The new matrices from inputs below, from inputs above, and the mean of both."""
    below = [gap - 1 for gap in gaps]
    above = [gap if gap + 2 < depth else gap - 1 for gap in gaps]
    low, high = (
        member(predicted_matrices(bases, fits, pairs, [layer + 2 for layer in pairs]), 0) for pairs in (below, above)
    )
    return [low, high, jax.tree.map(lambda a, b: (a + b) / 2, low, high)]


def variants(kinds: Matrices, gaps: tuple[int, ...], depth: int, seed: int) -> list[Variant]:
    predicted, pairs, fits = {}, ("below (g-1, g+1)", "above (g, g+2)", "mean of both"), {}
    bases = {"SVD": svd_bases(kinds), "raw": raw_bases(kinds)}
    for space, basis in bases.items():
        fits[space] = {kind: fit_grid(one, [Member(seed)]) for kind, one in basis.items()}
        predicted[space] = member(predicted_matrices(basis, fits[space], gaps, [gap + 1 for gap in gaps]), 0)
    lesa = predicted["SVD"]
    found = [Variant("norms", f"{space}, {source}", predicted[space], source) for space in bases for source in SOURCES]
    for name, matrices in zip(pairs, two_apart(bases["SVD"], fits["SVD"], gaps, depth), strict=True):
        found.append(Variant("inputs", f"SVD, {name}", matrices))
    zero = {kind: 0 * matrix for kind, matrix in lesa.items()}
    copied, mean = copies(kinds, gaps), averages(kinds, gaps)
    return [
        *found,
        Variant("controls", "zero matrices", zero),
        Variant("controls", "copies, silenced", copied, "previous", silent=True),
        Variant("controls", "Gaussian, LESA's norms, first", gaussian_like(lesa)),
        Variant("controls", "Gaussian, LESA's norms, previous", gaussian_like(lesa), "previous"),
        Variant("controls", "average, first", mean),
        Variant("controls", "average, previous", mean, "previous"),
        Variant("controls", "copies, first", copied),
        Variant("controls", "copies, previous", copied, "previous"),
    ]


def main(settings: Settings) -> None:
    started = time.perf_counter()
    subject = load_subject(settings)
    kinds, gaps = weight_kinds(subject.layers), top_gaps(subject.depth)
    plan, start = insert(subject.depth, gaps), streams_at(subject, gaps[0] + 1)
    reference = measure(subject, base(subject, gaps[0] + 1), start)
    rows: list[dict[str, Any]] = [{"table": "base", "name": "base", "perplexity": reference.perplexity}]
    path = settings.results / f"ablation_inputs_{subject.name}.csv"
    for variant in variants(kinds, gaps, subject.depth, settings.seed):
        ratios = [frobenius(w) / neighbour_norms(kinds[kind], gaps) for kind, w in variant.matrices.items()]
        row = {"table": variant.table, "name": variant.name, "norm": float(np.mean([np.asarray(r) for r in ratios]))}
        for prefix, matrices in (("", variant.matrices), ("matched_", norm_matched(variant.matrices, kinds, gaps))):
            new = new_layers(subject.layers, gaps, matrices, variant.norms, variant.silent)
            reading = measure(subject, grow(subject, plan, new), start)
            change, error = against(reading, reference)
            row |= {f"{prefix}perplexity": reading.perplexity, f"{prefix}percent": change, f"{prefix}percent_se": error}
        print({name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()}, flush=True)
        rows.append(row)
        write_csv(path, rows)
    draw(rows[1:], path.with_suffix(".png"))
    print(f"{time.perf_counter() - started:.0f} s")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(rows))[::-1]
    for offset, prefix, label in ((0.2, "", "as made"), (-0.2, "matched_", "at the neighbours' norms")):
        values, errors = ([row[f"{prefix}{name}"] for row in rows] for name in ("percent", "percent_se"))
        axes.barh(y + offset, values, 0.38, xerr=errors, label=label)
    axes.set_yticks(y, [row["name"] for row in rows])
    axes.set_xlabel("perplexity against base, %; lines: standard error over windows")
    axes.axvline(0, color="grey", linewidth=1)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    FigureCanvasAgg(figure).print_png(str(path))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
