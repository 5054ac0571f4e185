"""Which settings of LESA's predictor matter: norm weight, hidden size, epochs and learning rate, or no network at all.

Command:   python experiments/ablation/ablation_predictor.py --model books16 --text books-val.txt --characters 40000
           The same without --model and --text is for the demo model.
Run time:  8 minutes of processor time (demo: 4); on 2 CPU cores with other work on both twice that and more.
Expected:  experiments/results/ablation_predictor_books16.csv and .png (_demo); verdicts in experiments/README.md.

Every predictor is trained without the targets of three held-out layers, on which its error is taken, relative to
predicting zero; that same predictor makes eight new layers in the top gaps. "Norm" is the Frobenius norm of a new
matrix over its neighbours' mean; "matched" is the perplexity once every new matrix is scaled to that mean. Grids run as
one vmapped program for each kind: 4 norm weights x 3 seeds, then 3 learning rates for each number of epochs. `--tables`
names those to compute.
"""

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import tyro
from ablation import (
    Reading,
    Source,
    Subject,
    against,
    base,
    frobenius,
    grow,
    load_subject,
    measure,
    neighbour_norms,
    new_layers,
    norm_matched,
    short,
    streams_at,
    svd_bases,
    top_gaps,
    weight_kinds,
    write_csv,
)
from ablation_fit import (
    Apply,
    Member,
    fit_grid,
    fit_ridge,
    linear,
    member,
    predicted_matrices,
    prediction_errors,
)

from lesa_jax.initializers.lesa.predictor import PUBLISHED, Params, predict
from lesa_jax.initializers.lesa.svd import LayerSVD
from lesa_jax.planning.placement import insert

Row = dict[str, Any]
Table = Literal["norm weight", "linear, ridge", "hidden size", "epochs"]


@dataclass(frozen=True)
class Settings(Source):
    """The grids."""

    tables: tuple[Table, ...] = ("norm weight", "linear, ridge", "hidden size", "epochs")
    """Which to compute; tables of an earlier run on the same text that are not named stay in the file."""
    norm_weights: tuple[float, ...] = (0.0, 5e-5, 5e-4, 5e-3)
    seeds: int = 3
    hidden_sizes: tuple[int, ...] = (64, 128, 256, 512, 1024)
    ridges: tuple[float, ...] = (0.0, 0.1, 1.0, 10.0)
    """Penalties of the linear predictor, in units of the inputs' mean eigenvalue."""
    epochs: tuple[int, ...] = (1, 5, 10, 20)
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    held_out: tuple[int, ...] = (3, 8, 13)
    """Layers that are never a target."""


class Bench:
    """A subject taken apart, ready to judge predictors."""

    def __init__(self, subject: Subject, held_out: Sequence[int]):
        self.subject, self.held_out = subject, held_out
        self.kinds = weight_kinds(subject.layers)
        self.bases: dict[str, LayerSVD] = svd_bases(self.kinds)
        self.gaps = top_gaps(subject.depth)
        self.plan = insert(subject.depth, self.gaps)
        self.start = streams_at(subject, self.gaps[0] + 1)
        self.base = measure(subject, base(subject, self.gaps[0] + 1), self.start)

    def perplexity(self, matrices: Mapping[str, Any]) -> Reading:
        layers = new_layers(self.subject.layers, self.gaps, matrices, "first")
        return measure(self.subject, grow(self.subject, self.plan, layers), self.start)

    def judge(self, labels: Sequence[Row], fits: Mapping[str, Params], apply: Apply = predict) -> list[Row]:
        """For every predictor of a grid, a row for every kind and one, with the perplexities, for all of them."""
        matrices = predicted_matrices(self.bases, fits, self.gaps, [gap + 1 for gap in self.gaps], apply)
        figures = {kind: self.figures(kind, fits[kind], matrices[kind], apply) for kind in self.kinds}
        first, rows = next(iter(self.kinds)), []
        for number, label in enumerate(labels):
            by_kind = {kind: figures[kind][number] for kind in self.kinds}
            rows += [label | {"kind": short(kind)} | by_kind[kind] for kind in self.kinds]
            mean = {name: float(np.mean([row[name] for row in by_kind.values()])) for name in by_kind[first]}
            new = member(matrices, number)
            rows.append(label | {"kind": "all"} | mean | self.perplexities(new))
            print({name: round(v, 4) if isinstance(v, float) else v for name, v in rows[-1].items()}, flush=True)
        return rows

    def figures(self, kind: str, params: Params, matrices: Any, apply: Apply) -> list[Row]:
        norms = np.asarray(jnp.mean(frobenius(matrices) / neighbour_norms(self.kinds[kind], self.gaps)[None], axis=1))
        errors = prediction_errors(self.bases[kind], params, self.held_out, apply)
        return [{"norm": float(norm)} | error for norm, error in zip(norms, errors, strict=True)]

    def perplexities(self, new: Mapping[str, Any]) -> Row:
        plain, matched = self.perplexity(new), self.perplexity(norm_matched(new, self.kinds, self.gaps))
        row: Row = {}
        for name, reading in (("", plain), ("matched_", matched)):
            change, error = against(reading, self.base)
            row |= {f"{name}perplexity": reading.perplexity, f"{name}percent": change, f"{name}percent_se": error}
        return row


def norm_weight_grid(bench: Bench, settings: Settings) -> list[Row]:
    members = [Member(seed, weight) for weight in settings.norm_weights for seed in range(settings.seeds)]
    fits = {kind: fit_grid(basis, members, held_out=settings.held_out) for kind, basis in bench.bases.items()}
    labels = [{"table": "norm weight", "value": m.norm_weight, "seed": m.seed} for m in members]
    return bench.judge(labels, fits)


def hidden_size_grid(bench: Bench, settings: Settings) -> list[Row]:
    rows: list[Row] = []
    for size in settings.hidden_sizes:
        shape = replace(PUBLISHED, hidden_size=size)
        fits = {kind: fit_grid(b, [Member()], shape, settings.held_out) for kind, b in bench.bases.items()}
        rows += bench.judge([{"table": "hidden size", "value": size, "seed": 0}], fits)
    return rows


def ridge_grid(bench: Bench, settings: Settings) -> list[Row]:
    fits = {kind: fit_ridge(basis, settings.ridges, settings.held_out) for kind, basis in bench.bases.items()}
    labels = [{"table": "linear, ridge", "value": ridge, "seed": 0} for ridge in settings.ridges]
    return bench.judge(labels, fits, linear)


def schedule_grid(bench: Bench, settings: Settings) -> list[Row]:
    rows: list[Row] = []
    members = [Member(learning_rate=rate) for rate in settings.learning_rates]
    for epochs in settings.epochs:
        shape = replace(PUBLISHED, epochs=epochs)
        fits = {kind: fit_grid(b, members, shape, settings.held_out) for kind, b in bench.bases.items()}
        labels = [{"table": "epochs", "value": epochs, "rate": m.learning_rate, "seed": 0} for m in members]
        rows += bench.judge(labels, fits)
    return rows


GRIDS: dict[Table, Callable[[Bench, Settings], list[Row]]] = {
    "norm weight": norm_weight_grid,
    "linear, ridge": ridge_grid,
    "hidden size": hidden_size_grid,
    "epochs": schedule_grid,
}


def main(settings: Settings) -> None:
    started = time.perf_counter()
    subject = load_subject(settings)
    bench = Bench(subject, settings.held_out)
    path = settings.results / f"ablation_predictor_{subject.name}.csv"
    rows: list[Row] = [{"table": "base", "kind": "all", "perplexity": bench.base.perplexity}]
    rows += [row for row in read_rows(path) if row["table"] not in ("base", *settings.tables)]
    for table in settings.tables:
        rows += GRIDS[table](bench, settings)
        write_csv(path, rows)
        print(f"{time.perf_counter() - started:.0f} s", flush=True)
    draw(rows, path.with_suffix(".png"))


def read_rows(path: Path) -> list[Row]:
    """The rows of an earlier run, numbers as numbers; none if there was none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        words = [{name: text for name, text in row.items() if text} for row in csv.DictReader(file)]
    return [{name: text if name in ("table", "kind") else float(text) for name, text in row.items()} for row in words]


def draw(rows: Sequence[Row], path: Path) -> None:
    """One column a table: norm, prediction error and perplexity against the value that was varied."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 8), layout="constrained")
    axes = figure.subplots(3, len(GRIDS), sharey="row")
    for column, table in enumerate(GRIDS):
        chosen = [row for row in rows if row["table"] == table and row["kind"] == "all"]
        if not chosen:
            continue
        draw_table(axes[:, column], chosen)
        axes[2, column].set_xlabel(table)
    for axis, title in zip(axes[:, 0], ("norm", "error / zero predictor's", "perplexity against base, %"), strict=True):
        axis.set_ylabel(title)
    axes[2, 0].set_yscale("symlog", linthresh=1)
    axes[2, 0].set_ylim(bottom=-0.5)
    FigureCanvasAgg(figure).print_png(str(path))


def draw_table(axes: Any, rows: Sequence[Row]) -> None:
    """A curve for each learning rate, or each seed; the values at equal distances."""
    values, rates = (sorted({row.get(name, 0.0) for row in rows}) for name in ("value", "rate"))
    for rate, seed in sorted({(row.get("rate", 0.0), row.get("seed", 0)) for row in rows}):
        line = [row for row in rows if (row.get("rate", 0.0), row.get("seed", 0)) == (rate, seed)]
        x = [values.index(row["value"]) for row in line]
        tag = f", rate {rate:g}" if rate else ""
        for axis, name, style, what in (
            (axes[0], "norm", "-", "new / neighbours"),
            (axes[1], "error_train", "--", "trained on"),
            (axes[1], "error_held_out", "-", "held out"),
            (axes[2], "percent", "-", "as predicted"),
            (axes[2], "matched_percent", "--", "norm-matched"),
        ):
            y = [row[name] for row in line]
            label = what + tag if seed == 0 else None
            axis.plot(x, y, style, marker=".", markersize=3, color=f"C{rates.index(rate)}", label=label)
    axes[1].axhline(1, color="grey", linewidth=1, linestyle=":")
    for axis in axes:
        axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=7, handlelength=3)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
