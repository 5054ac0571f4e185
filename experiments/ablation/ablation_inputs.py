"""What LESA's prediction is made from: SVD or raw weights, whose norm weights, adjacent or two-apart inputs; controls.

Command:   python experiments/ablation/ablation_inputs.py --model books16 --text books-val.txt --characters 40000
           The same without --model and --text is for the demo model.
Run time:  7 minutes (demo: 3) on 2 CPU cores with other work on both.
Expected:  experiments/results/ablation_inputs_books16.csv and .png (_demo); verdicts in experiments/README.md.

Eight new layers in the top gaps, no training after growth. Predictors learn from samples whose two inputs are two
layers apart (l-1 and l+1); a new layer in the gap between g and g+1 then gets adjacent inputs (g, g+1), as published.
The two-apart variants ask for layer g ("below", inputs g-1 and g+1), for layer g+1 ("above", g and g+2; in the last gap
there is no g+2, and "below" stands in), and for the mean of these two. Controls: zero matrices and silenced copies,
which both must give the base's perplexity; averages and plain copies; and what knows ever more of LESA's prediction:
Gaussian matrices with its norms; U diag(S) times rows of its rows' norms, Gaussian or mixed at random from all rows of
V (so with its left and its right structure, and nothing that a network said); and networks that learnt from shuffled
layers. The mean of all layers is what a network that ignores its inputs would say.

"cosine" is that of the new matrices with the original ones below and above the gap and with all others, mean over gaps
and kinds: whom does a new layer take after?
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
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
from ablation_fit import Member, as_matrices, fit_grid, member, predicted_matrices, predicted_rows

from lesa_jax.initializers.lesa.svd import LayerSVD
from lesa_jax.planning.placement import insert

Matrices = Mapping[str, Any]
SOURCES: tuple[NormSource, ...] = ("first", "previous", "next", "mean")


@dataclass(frozen=True)
class Settings(Source):
    seeds: int = 3
    """Of LESA, and of LESA learnt from shuffled layers; all else has the first."""


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


def gaussian_rows(bases: Mapping[str, LayerSVD], rows: Matrices, mix: bool) -> Matrices:
    """U diag(S) times Gaussian rows, each with the norm of the row in its place in `rows` [gaps, r, in].

    Args:
      mix: draw them with the covariance of all rows of V, as sums of these with Gaussian weights.
    """
    rng, matrices = np.random.default_rng(0), {}
    for kind, basis in bases.items():
        source = basis.v.reshape(-1, basis.v.shape[-1]) if mix else jnp.eye(basis.v.shape[-1])
        noise = jnp.asarray(rng.standard_normal((*rows[kind].shape[:2], len(source)), np.float32)) @ source
        lengths = jnp.linalg.norm(rows[kind], axis=-1, keepdims=True) / jnp.linalg.norm(noise, axis=-1, keepdims=True)
        matrices[kind] = as_matrices(basis.u, basis.s, noise * lengths)
    return matrices


def mean_layer(kinds: Matrices, like: Matrices) -> Matrices:
    """The mean of all layers' matrices, with the Frobenius norms of `like`."""
    means = {kind: jnp.broadcast_to(w.mean(axis=0), like[kind].shape) for kind, w in kinds.items()}
    return {kind: w * (frobenius(like[kind]) / frobenius(w))[:, None, None] for kind, w in means.items()}


def seeds(bases: Mapping[str, LayerSVD], gaps: tuple[int, ...], seeds: Sequence[int]) -> list[Variant]:
    """LESA with predictors of several seeds, learnt from the layers in their order and in a random one."""
    above = [gap + 1 for gap in gaps]
    found = []
    for name in ("LESA", "shuffled"):
        fits = {}
        for kind, basis in bases.items():
            order = np.arange(len(basis.v)) if name == "LESA" else np.random.default_rng(0).permutation(len(basis.v))
            fits[kind] = fit_grid(replace(basis, v=basis.v[order]), [Member(seed) for seed in seeds])
        matrices = predicted_matrices(bases, fits, gaps, above)
        found += [Variant("seeds", f"{name}, seed {seed}", member(matrices, i)) for i, seed in enumerate(seeds)]
    return found


def variants(kinds: Matrices, gaps: tuple[int, ...], depth: int, settings: Settings) -> list[Variant]:
    predicted, fits, above = {}, {}, [gap + 1 for gap in gaps]
    bases = {"SVD": svd_bases(kinds), "raw": raw_bases(kinds)}
    for space, basis in bases.items():
        fits[space] = {kind: fit_grid(one, [Member()]) for kind, one in basis.items()}
        predicted[space] = member(predicted_matrices(basis, fits[space], gaps, above), 0)
    lesa, svd = predicted["SVD"], bases["SVD"]
    found = [Variant("norms", f"{space}, {source}", predicted[space], source) for space in bases for source in SOURCES]
    pairs = ("below (g-1, g+1)", "above (g, g+2)", "mean of both")
    for name, matrices in zip(pairs, two_apart(svd, fits["SVD"], gaps, depth), strict=True):
        found.append(Variant("inputs", f"SVD, {name}", matrices))
    rows = {kind: predicted_rows(fits["SVD"][kind], svd[kind].v, np.array(gaps), np.array(above))[0] for kind in kinds}
    copied, mean = copies(kinds, gaps), averages(kinds, gaps)
    return [
        *found,
        *seeds(svd, gaps, range(settings.seeds)),
        Variant("controls", "zero matrices", {kind: 0 * matrix for kind, matrix in lesa.items()}),
        Variant("controls", "copies, silenced", copied, "previous", silent=True),
        Variant("controls", "Gaussian, LESA's norms, first", gaussian_like(lesa)),
        Variant("controls", "Gaussian, LESA's norms, previous", gaussian_like(lesa), "previous"),
        Variant("controls", "U S, Gaussian rows, LESA's row norms, first", gaussian_rows(svd, rows, mix=False)),
        Variant("controls", "U S, mixed rows of V, LESA's row norms, first", gaussian_rows(svd, rows, mix=True)),
        Variant("controls", "mean of all layers, LESA's norms, first", mean_layer(kinds, lesa)),
        Variant("controls", "average, first", mean),
        Variant("controls", "average, previous", mean, "previous"),
        Variant("controls", "copies, first", copied),
        Variant("controls", "copies, previous", copied, "previous"),
    ]


def resemblance(matrices: Matrices, kinds: Matrices, gaps: tuple[int, ...]) -> dict[str, float]:
    """Cosines of new matrices with the originals below, above, and elsewhere (the mean), over gaps and kinds."""
    below, gap = np.array(gaps), np.arange(len(gaps))
    cosines = []
    for kind, w in kinds.items():
        norms = jnp.maximum(frobenius(matrices[kind])[:, None] * frobenius(w)[None], 1e-30)
        cosines.append(np.asarray(jnp.einsum("goi,loi->gl", matrices[kind], w) / norms))
    cosine = np.mean(cosines, axis=0)
    others = np.ones(cosine.shape, bool)
    others[gap, below] = others[gap, below + 1] = False
    means = {"below": cosine[gap, below], "above": cosine[gap, below + 1], "others": cosine[others]}
    return {f"cosine_{name}": float(values.mean()) for name, values in means.items()}


def main(settings: Settings) -> None:
    started = time.perf_counter()
    subject = load_subject(settings)
    kinds, gaps = weight_kinds(subject.layers), top_gaps(subject.depth)
    plan, start = insert(subject.depth, gaps), streams_at(subject, gaps[0] + 1)
    reference = measure(subject, base(subject, gaps[0] + 1), start)
    rows: list[dict[str, Any]] = [{"table": "base", "name": "base", "perplexity": reference.perplexity}]
    path = settings.results / f"ablation_inputs_{subject.name}.csv"
    for variant in variants(kinds, gaps, subject.depth, settings):
        ratios = [frobenius(w) / neighbour_norms(kinds[kind], gaps) for kind, w in variant.matrices.items()]
        row = {"table": variant.table, "name": variant.name, "norm": float(np.mean([np.asarray(r) for r in ratios]))}
        row |= resemblance(variant.matrices, kinds, gaps)
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
