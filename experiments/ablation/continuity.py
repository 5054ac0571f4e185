"""Are a layer's leading singular coefficients a smooth function of depth? LESA's continuity picture, with a number.

Command:   python experiments/ablation/continuity.py --model books16
Run time:  half a minute of processor time; 5 minutes beside much other work.
Expected:  experiments/results/continuity_books16.csv and .png; verdict in experiments/README.md.

For every kind of weight, layer l has the vector V_l[0]: the coefficients of the largest shared singular direction. LESA
(arXiv 2502.13794) shows their t-SNE, in which layers seem to line up by depth. Here the order of the points along a
path is compared with the layers' numbers by Spearman's rank correlation, without sign, as a path has two ends:

  path    the shortest path through all points in the full space (`lesa_jax.analysis.continuity`, as lesa analyze)
  tsne    the shortest path through the points of the t-SNE picture
  first   the order along the first principal coordinate

The null is the same number with layer numbers shuffled: its mean, its 95 % quantile and the p value are printed.
"adjacent" is the mean cosine of V_l[0] and V_{l+1}[0], against that of all pairs of layers. t-SNE is exact and starts
from the principal coordinates, so that equal coefficients give equal pictures; a last digit may change them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from ablation import short, svd_bases, weight_kinds, write_csv
from jaxtyping import Float

from lesa_jax import demo
from lesa_jax.analysis.continuity import distances, null_correlations, p_value, shortest_path, spearman
from lesa_jax.models.load import load_model
from lesa_jax.models.parts import layers_of

Points = Float[np.ndarray, "points features"]


@dataclass(frozen=True)
class Settings:
    """Which model."""

    model: str | None = None
    """Checkpoint folder; by default the demo model."""
    perplexity: float = 5.0
    """Of t-SNE: about how many neighbours a point has."""
    shuffles: int = 10_000
    seed: int = 0
    """Of the shuffles."""
    results: Path = Path("experiments/results")


def main(settings: Settings) -> None:
    folder = demo.MODEL_DIRECTORY if settings.model is None else Path(settings.model)
    params, config = load_model(folder)
    name = "demo" if settings.model is None else folder.name
    bases = svd_bases(weight_kinds(layers_of(params, config)))
    rows, pictures = [], {}
    for kind, basis in bases.items():
        points = np.asarray(basis.v[:, 0], np.float64)
        pictures[short(kind)] = tsne(points, settings.perplexity)
        row = {"kind": short(kind)} | continuity(points, pictures[short(kind)], settings)
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
        rows.append(row)
    path = settings.results / f"continuity_{name}.csv"
    write_csv(path, rows)
    draw(pictures, {row["kind"]: row for row in rows}, path.with_suffix(".png"))


def continuity(points: Points, picture: Points, settings: Settings) -> dict[str, float]:
    """The three rank correlations with their p values, their null, and cosines."""
    orders = {
        "path": shortest_path(distances(points)),
        "tsne": shortest_path(distances(picture)),
        "first": np.argsort(principal_coordinates(points, 1)[:, 0]),
    }
    null = null_correlations(len(points), settings.shuffles, settings.seed)
    result: dict[str, float] = {}
    for name, order in orders.items():
        value = abs(spearman(order))
        result |= {name: value, f"p_{name}": p_value(value, null)}
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    cosines, upper = unit @ unit.T, np.triu_indices(len(points), 1)
    result |= {"null_mean": float(null.mean()), "null_95": float(np.quantile(null, 0.95))}
    return result | {
        "adjacent_cosine": float(np.mean(np.diagonal(cosines, 1))),
        "all_cosine": float(np.mean(cosines[upper])),
    }


def principal_coordinates(points: Points, count: int) -> Points:
    centred = points - points.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return u[:, :count] * s[:count]


def tsne(points: Points, perplexity: float, steps: int = 1000) -> Points:
    """Exact t-SNE (van der Maaten and Hinton 2008) in two dimensions.

    Momentum 0.5 and attractions four times as large for the first 100 steps, then 0.8; from the principal coordinates.
    """
    p = np.maximum(affinities(distances(points) ** 2, perplexity), 1e-12)
    y = principal_coordinates(points, 2)
    y *= 1e-2 / y[:, 0].std()
    velocity = np.zeros_like(y)
    for step in range(steps):
        kernel = 1 / (1 + distances(y) ** 2)
        np.fill_diagonal(kernel, 0)
        q = np.maximum(kernel / kernel.sum(), 1e-12)
        pull = ((4 if step < 100 else 1) * p - q) * kernel
        gradient = 4 * (np.diag(pull.sum(axis=1)) - pull) @ y
        velocity = (0.5 if step < 100 else 0.8) * velocity - 10 * gradient
        y = y + velocity
        y -= y.mean(axis=0)
    return y


def affinities(squares: Float[np.ndarray, "points points"], perplexity: float) -> Float[np.ndarray, "points points"]:
    """Symmetric joint probabilities; bisection finds the bandwidth at which a point's entropy is log(perplexity)."""
    n = len(squares)
    joint = np.zeros((n, n))
    for i in range(n):
        others = np.arange(n) != i
        square = squares[i, others] / squares[i, others].mean()
        low, high = -20.0, 20.0  # log of the precision
        for _ in range(100):
            middle = (low + high) / 2
            weight = np.exp(-np.exp(middle) * (square - square.min()))
            row = weight / weight.sum()
            entropy = -np.sum(row * np.log(np.maximum(row, 1e-300)))
            low, high = (middle, high) if entropy > np.log(perplexity) else (low, middle)
        joint[i, others] = row
    return (joint + joint.T) / (2 * n)


def draw(pictures: dict[str, Points], rows: dict[str, Any], path: Path) -> None:
    """Two rows of panels, the second one a panel shorter where their number is odd."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    upper = -(-len(pictures) // 2)
    lower = max(len(pictures) - upper, 1)
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    grid = figure.add_gridspec(2, upper * lower)
    places = [grid[0, lower * i : lower * (i + 1)] for i in range(upper)]
    places += [grid[1, upper * i : upper * (i + 1)] for i in range(lower)]
    axes = []
    for place, (kind, points) in zip(places, pictures.items(), strict=False):
        axis = figure.add_subplot(place)
        axis.plot(*points[shortest_path(distances(points))].T, color="lightgrey", linewidth=1, zorder=0)
        dots = axis.scatter(*points.T, c=np.arange(len(points)), cmap="viridis", s=30)
        for layer, point in enumerate(points):
            axis.annotate(str(layer), point, textcoords="offset points", xytext=(3, 3), fontsize=8)
        row = rows[kind]
        axis.set_title(f"{kind}\nin this picture {row['tsne']:.2f}, in full {row['path']:.2f}", fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
        axes.append(axis)
    figure.colorbar(dots, ax=axes, label="layer", shrink=0.6)
    row = next(iter(rows.values()))
    figure.suptitle(
        "How far layers lie along a line in the order of their depth: t-SNE of their leading singular coefficients\n"
        "Grey: the shortest path. Numbers: rank correlation of its order with depth; of layers in random order "
        f"{row['null_mean']:.2f}, in 95 % of cases below {row['null_95']:.2f}",
        fontsize=11,
    )
    FigureCanvasAgg(figure).print_png(str(path))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
