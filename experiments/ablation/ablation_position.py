"""Where a new layer may go: every gap on its own and every run of four gaps, and how far each disturbs what follows.

Command:   python experiments/ablation/ablation_position.py --model books16 --text books-val.txt --characters 16000
           The demo model has 40000 characters and neither --model nor --text.
Run time:  21 minutes on 2 CPU cores shared with much other work (load 11); demo: 5 minutes with other work on both.
Expected:  experiments/results/ablation_position_books16.csv and .png (_demo); verdicts in experiments/README.md.

Drift at layer l is the mean over tokens of |x' - x| / |x|, x the residual stream that enters original layer l in the
base and x' in the grown model; "end" is the stream above the last layer. For one new layer, "written" is its drift
right behind it, which is what it adds to the stream relative to the stream, and "gain" is end drift / written: how the
layers above amplify it. Three controls tell what part the prediction plays: copies (duplicate), silenced copies, which
must have no drift and the base's perplexity, and noise: no new layer at all, but a random vector of a tenth of the
stream's length added to every token of the stream in that gap.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from ablation import (
    Grown,
    NormSource,
    Reading,
    Source,
    Subject,
    Tree,
    against,
    base,
    copies,
    grow,
    load_subject,
    measure,
    new_layers,
    svd_bases,
    weight_kinds,
    window_nll,
    write_csv,
)
from ablation_fit import Member, fit_grid, member, predicted_matrices
from jaxtyping import Array, Float

from lesa_jax.families.model import ModelConfig
from lesa_jax.models.decoder import block, embed, make_context
from lesa_jax.models.views import view, views
from lesa_jax.planning.placement import insert

Row = dict[str, Any]
Streams = Float[Array, "layers batch tokens hidden"]


@dataclass(frozen=True)
class Settings(Source):
    run_length: int = 4
    """New layers of the second sweep, in neighbouring gaps."""
    noise: float = 0.1
    """Length of the random vector, relative to the stream's."""
    seed: int = 0


@functools.partial(jax.jit, static_argnames="config")
def trace(
    params: Tree, layers: Tree, tokens_BxT: Array, noise_L: Array, config: ModelConfig
) -> tuple[Streams, Float[Array, " batch"]]:
    """The residual stream that enters every layer, that above the last one, and the windows' losses.

    What enters layer l has a random vector of `noise_L[l]` times its length added, for every token.
    """
    positions = jnp.arange(tokens_BxT.shape[1])[None]
    context = make_context(positions, config)
    shared, arrays = views(config, range(config.num_layers))

    def step(x, scanned):
        layer, own, noise, key = scanned
        direction = jax.random.normal(key, x.shape)
        x = x + noise * direction * (length(x) / length(direction))[..., None]
        return block(layer, x, context, view(shared, own), config), x

    keys = jax.random.split(jax.random.key(0), config.num_layers)
    start = embed(params, tokens_BxT, positions, config)
    end, streams = jax.lax.scan(step, start, (layers, arrays, noise_L, keys))
    return jnp.concatenate([streams, end[None]]), window_nll(params, end, tokens_BxT, config)


def length(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=-1))


@jax.jit
def drift(streams: Streams, reference: Streams) -> Float[Array, " layers"]:
    """Mean over tokens of the relative change, at every place of the base."""
    return jnp.mean(length(streams - reference) / length(reference), axis=(1, 2))


class Sweep:
    """A subject, its base run, and predicted layers for every gap."""

    def __init__(self, subject: Subject, settings: Settings):
        self.subject, self.settings = subject, settings
        self.kinds = weight_kinds(subject.layers)
        self.base = measure(subject, base(subject))
        self.gaps = tuple(range(subject.depth - 1))
        self.reference = self.streams(base(subject))
        bases = svd_bases(self.kinds)
        fits = {kind: fit_grid(basis, [Member(settings.seed)]) for kind, basis in bases.items()}
        predicted = predicted_matrices(bases, fits, self.gaps, [gap + 1 for gap in self.gaps])
        # Every variant's new layers for all gaps; a plan takes those of its own gaps.
        lesa, copied = member(predicted, 0), copies(self.kinds, self.gaps)
        self.variants = {
            "LESA": self.tree(lesa, "first"),
            "LESA, previous norms": self.tree(lesa, "previous"),
            "duplicate": self.tree(copied, "previous"),
            "silenced copy": self.tree(copied, "previous", silent=True),
        }

    def tree(self, matrices: Mapping[str, Any], norms: NormSource, silent: bool = False) -> Tree:
        return new_layers(self.subject.layers, self.gaps, matrices, norms, silent)

    def streams(self, grown: Grown) -> Streams:
        """Of the first batch."""
        noise = jnp.zeros(grown.config.num_layers)
        tokens = self.subject.tokens[0]
        return trace(self.subject.params, grown.layers, tokens, noise, grown.config)[0]

    def place(self, variant: str, gaps: Sequence[int]) -> Row:
        plan = insert(self.subject.depth, gaps)
        new = jax.tree.map(lambda leaf: leaf[np.array(gaps)], self.variants[variant])
        grown = grow(self.subject, plan, new)
        # An original's input is the stream right behind the new layer below it.
        streams = self.streams(grown)[np.array([*plan.old_layers, plan.layers])]
        return self.row(variant, gaps, streams, measure(self.subject, grown))

    def noise(self, gap: int) -> Row:
        subject, amount = self.subject, jnp.zeros(self.subject.depth).at[gap + 1].set(self.settings.noise)
        grown, nll, first = base(subject), [], None
        for tokens in subject.tokens:
            streams, losses = trace(subject.params, grown.layers, tokens, amount, grown.config)
            first = streams if first is None else first
            nll.append(np.asarray(losses, np.float64))
        assert first is not None
        reading = Reading(float(np.exp(np.mean(nll))), np.concatenate(nll))
        return self.row("noise", [gap], first, reading)

    def row(self, variant: str, gaps: Sequence[int], streams: Streams, reading: Reading) -> Row:
        drifts = np.asarray(drift(streams, self.reference)).tolist()
        written = drifts[gaps[0] + 1]  # what the first new layer adds, or the noise
        change, error = against(reading, self.base)
        row: Row = {"variant": variant, "new": len(gaps), "gap": gaps[0], "perplexity": reading.perplexity}
        row |= {"percent": change, "percent_se": error, "written": written, "end": drifts[-1]}
        if len(gaps) == 1:
            row["gain"] = drifts[-1] / written if written > 0 else 0.0
        print({name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()}, flush=True)
        return row | {f"drift_{layer}": value for layer, value in enumerate(drifts[:-1])}


def main(settings: Settings) -> None:
    started = time.perf_counter()
    subject = load_subject(settings)
    sweep = Sweep(subject, settings)
    stream = np.asarray(jnp.mean(length(sweep.reference), axis=(1, 2)))
    rows: list[Row] = [{"variant": "base", "perplexity": sweep.base.perplexity, "end": float(stream[-1])}]
    rows[0] |= {f"drift_{layer}": float(value) for layer, value in enumerate(stream[:-1])}  # the stream's own length
    path = settings.results / f"ablation_position_{subject.name}.csv"
    rows.append(sweep.place("silenced copy", [0]))
    for variant in ("LESA", "duplicate", "LESA, previous norms"):
        rows += [sweep.place(variant, [gap]) for gap in sweep.gaps]
        write_csv(path, rows)
    rows += [sweep.noise(gap) for gap in sweep.gaps]
    for variant in ("LESA", "duplicate"):
        starts = range(subject.depth - settings.run_length)
        rows += [sweep.place(variant, range(first, first + settings.run_length)) for first in starts]
        write_csv(path, rows)
    draw(rows, settings, path.with_suffix(".png"))
    print(f"{time.perf_counter() - started:.0f} s")


def draw(rows: Sequence[Row], settings: Settings, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.5), layout="constrained")
    axes = figure.subplots(2, 3).reshape(-1)
    panels = (
        (axes[0], 1, "percent", "one new layer: perplexity against base, %"),
        (axes[1], settings.run_length, "percent", f"{settings.run_length} new layers: perplexity against base, %"),
        (axes[3], 1, "written", "written / stream"),
        (axes[4], 1, "gain", "gain: drift at the end / written"),
        (axes[5], 1, "end", "drift at the end"),
    )
    for axis, new, name, title in panels:
        for color, variant in enumerate(("LESA", "LESA, previous norms", "duplicate", "noise")):
            line = [row for row in rows if row["variant"] == variant and row["new"] == new]
            if line:
                values = [row[name] for row in line]
                axis.plot([row["gap"] for row in line], values, marker=".", label=variant, color=f"C{color}")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("gap" if new == 1 else "first gap")
        axis.set_yscale("symlog", linthresh=1) if name == "percent" else axis.set_yscale("log")
    axes[0].legend(frameon=False, fontsize=8)
    lesa = [row for row in rows if row["variant"] == "LESA" and row["new"] == 1]
    depth = len(lesa) + 1
    for row in lesa:
        places = range(row["gap"] + 1, depth)
        shade = (row["gap"] / depth, 0.3, 1 - row["gap"] / depth)
        axes[2].plot(
            [*places, depth], [*(row[f"drift_{place}"] for place in places), row["end"]], color=shade, linewidth=1
        )
    axes[2].set_yscale("log")
    axes[2].set_title("one LESA layer: drift along the depth", fontsize=10)
    axes[2].set_xlabel("original layer")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(str(path))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
