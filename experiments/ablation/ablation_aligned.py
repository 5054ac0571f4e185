"""Can a layer be predicted from its neighbours once neurons and heads are numbered alike, in the basis of the stream?

Command:   python experiments/ablation/ablation_aligned.py --model smollm2 --text wikitext2-test.txt --characters 8000
           The same without --model and --text is for the demo model.
Run time:  7 minutes on one of 2 CPU cores with much other work for the demo model, 45 for SmolLM2 and its predictions.
Expected:  experiments/results/ablation_aligned_smollm2.csv (_demo); verdicts in experiments/README.md, "Layers told
           alike".

LESA predicts rows of V in a basis on the side of the neurons for queries, keys, values, gate and up, though neurons and
heads have no order that layers share. Here layers are first told alike (`aligning.py`, which changes no function), and
the basis is also taken on the side of the residual stream, which all layers do share. Predictors learn from all layers
but three, and are judged on these, in weights: error is |p - w|^2 / |w|^2, of zero 1; cosine says what error the best
scaling would reach, 1 - cosine^2.

  copy, mean       the layer below; the mean of both neighbours
  ridge            a linear map in closed form, of the layer or of its change against the copy
  LESA             the published network, with the published settings

A held-out layer is compared as it is told most like the layer below it, which makes cosines with anything larger than
0: two controls say by how much, layers in a random order and Gaussian layers of the same norms, told alike as well.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro
from ablation import (
    Source,
    against,
    averages,
    base,
    grow,
    load_subject,
    measure,
    new_layers,
    norm_matched,
    short,
    streams_at,
    top_gaps,
    weight_kinds,
    write_csv,
)
from ablation_fit import Member, fit_grid, fit_ridge, linear, member, predicted_matrices, ridge_kernels, samples_of
from aligning import align

from lesa_jax.initializers.lesa.predictor import predict
from lesa_jax.initializers.lesa.svd import LayerSVD, layer_svd
from lesa_jax.planning.placement import insert

Kinds = Mapping[str, np.ndarray]  # [layers, out, in]
Row = dict[str, Any]
RIDGE = 1.0  # penalty, in units of the inputs' mean eigenvalue


@dataclass(frozen=True)
class Settings(Source):
    """Which model, judged on which text."""

    network: bool = True
    """Train LESA's network, too, which takes most of the time."""
    seed: int = 0
    """Of the random order, and of Gaussian layers."""


def main(settings: Settings) -> None:
    started = time.perf_counter()
    subject = load_subject(settings)
    stored = {kind: np.asarray(w) for kind, w in weight_kinds(subject.layers).items()}
    path, rows = settings.results / f"ablation_aligned_{subject.name}.csv", []
    aligned = {}
    for layers, kinds in sources(stored, settings.seed):
        for told in ("stored", "aligned"):
            alike = kinds if told == "stored" else align(kinds, subject.config)
            if layers == "in order":
                aligned[told] = alike
            for row in predictions(alike, settings.network):
                rows.append({"layers": layers, "told": told} | row)
            write_csv(path, rows)
            print(f"{layers}, {told}: {time.perf_counter() - started:.0f} s", flush=True)
    write_csv(path, rows + list(starts(subject, aligned, settings.network)))


def sources(stored: Kinds, seed: int) -> Iterator[tuple[str, Kinds]]:
    """The layers, and what they are held against."""
    yield "in order", stored
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(next(iter(stored.values()))))
    yield "random order", {kind: w[order] for kind, w in stored.items()}
    noise = {kind: rng.standard_normal(w.shape, np.float32) for kind, w in stored.items()}
    norms = {kind: length(w) / length(noise[kind]) for kind, w in stored.items()}
    yield "Gaussian", {kind: noise[kind] * norms[kind] for kind in stored}


def length(w: np.ndarray) -> np.ndarray:
    """Frobenius norms, [layers, 1, 1]."""
    return np.sqrt(np.sum(np.square(w), axis=(1, 2), keepdims=True))


def predictions(kinds: Kinds, network: bool) -> Iterator[Row]:
    """For each kind and predictor, how good it is on the held-out layers."""
    for kind, w in kinds.items():
        held_out = held_out_layers(len(w))
        truth = w[held_out]
        below, above = w[[t - 1 for t in held_out]], w[[t + 1 for t in held_out]]
        for name, guess in (("copy", below), ("mean", (below + above) / 2)):
            yield {"kind": short(kind), "predictor": name} | goodness(guess, truth)
        for side, basis in bases(w, kind).items():
            for name, guess in guesses(basis, held_out, network):
                guess = guess.swapaxes(1, 2) if side == "stream" and reads_stream(kind) else guess
                yield {"kind": short(kind), "basis": side, "predictor": name} | goodness(guess, truth)


def held_out_layers(depth: int) -> list[int]:
    """One low, one in the middle, one high."""
    return [depth // 6, depth // 2, 5 * depth // 6]


def goodness(guess: np.ndarray, truth: np.ndarray) -> Row:
    """Error, cosine and norm, over all held-out layers together."""
    p, y = np.asarray(guess, np.float64), np.asarray(truth, np.float64)
    energy, power = np.sum(y**2), np.sum(p**2)
    return {
        "error": float(np.sum((p - y) ** 2) / energy),
        "cosine": float(np.sum(p * y) / max(np.sqrt(energy * power), 1e-30)),
        "norm": float(np.sqrt(power / energy)),
    }


def reads_stream(kind: str) -> bool:
    """Whether a matrix's columns are of the residual stream; if not, its rows are."""
    return short(kind) not in ("o", "down")


def bases(w: np.ndarray, kind: str) -> dict[str, LayerSVD]:
    """On the side of the rows, as published, and on that of the residual stream, where that is another."""
    found = {"rows": layer_svd(jnp.array(w))}
    if reads_stream(kind):
        found["stream"] = layer_svd(jnp.array(w.swapaxes(1, 2)))
    return found


def guesses(basis: LayerSVD, held_out: Sequence[int], network: bool) -> Iterator[tuple[str, np.ndarray]]:
    """What each predictor makes of the held-out layers, in the basis' own layout."""
    one = {"": basis}
    below, above = [t - 1 for t in held_out], [t + 1 for t in held_out]

    def matrices(params: Any, apply: Any) -> np.ndarray:
        return np.asarray(member(predicted_matrices(one, {"": params}, below, above, apply), 0)[""])

    yield "ridge", matrices(fit_ridge(basis, [RIDGE], held_out), linear)
    yield "ridge, change", matrices(fit_change(basis, held_out), linear)
    if network:
        yield "LESA", matrices(fit_grid(basis, [Member()], held_out=held_out), predict)


def fit_change(basis: LayerSVD, held_out: Sequence[int]) -> Any:
    """`fit_ridge` of what the layer has more than the copy of the layer below; the result has the copy added again."""
    x, y = samples_of(basis, held_out)
    width = y.shape[1]
    [change] = ridge_kernels(x, y - x[:, :width], [RIDGE])
    copy = np.concatenate([np.eye(width), np.zeros((width, width))])
    return {"kernel": jnp.asarray((copy + change)[None], jnp.float32)}


def starts(subject: Any, told: Mapping[str, Kinds], network: bool) -> Iterator[Row]:
    """Perplexities before training of new layers on top, made from layers as they are stored and told alike."""
    gaps = top_gaps(subject.depth)
    plan, above = insert(subject.depth, gaps), [gap + 1 for gap in gaps]
    start = streams_at(subject, gaps[0] + 1)
    original = measure(subject, base(subject, gaps[0] + 1), start)
    yield {"layers": "start", "predictor": "base", "perplexity": original.perplexity}
    for name, kinds in told.items():
        arrays = {kind: jnp.asarray(w) for kind, w in kinds.items()}
        made = {"mean": averages(arrays, gaps)}
        if network:
            made["LESA"] = from_stream(kinds, gaps, above)
        for predictor, matrices in made.items():
            # A mean of unlike layers is quieter than one of like ones: each at the loudness of its norm, and alike.
            for loudness in ("as made", "of the neighbours' norm"):
                new = matrices if loudness == "as made" else norm_matched(matrices, arrays, gaps)
                layers = new_layers(subject.layers, gaps, new, "mean")
                reading = measure(subject, grow(subject, plan, layers), start)
                change, error = against(reading, original)
                yield {
                    "layers": "start", "told": name, "predictor": predictor, "loudness": loudness,
                    "perplexity": reading.perplexity, "percent": change, "percent_se": error,
                }  # fmt: skip


def from_stream(kinds: Kinds, gaps: Sequence[int], above: Sequence[int]) -> dict[str, Any]:
    """What LESA's network puts into the gaps, in the basis of the residual stream for every kind."""
    made = {}
    for kind, w in kinds.items():
        side = "stream" if reads_stream(kind) else "rows"
        basis = {kind: bases(w, kind)[side]}
        found = member(predicted_matrices(basis, {kind: fit_grid(basis[kind], [Member()])}, gaps, above), 0)[kind]
        made[kind] = jnp.swapaxes(found, 1, 2) if side == "stream" else found
    return made


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
