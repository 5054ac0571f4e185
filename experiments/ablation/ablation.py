"""What the ablations share: a trained model as stacked arrays, growing it in memory, measuring what came out.

Nothing here writes a checkpoint. A grown model is the base's layers with a tree of new ones spliced in; perplexity is
that of the corpus protocol on whole windows only, so that all models predict the same tokens and differences between
two of them can be taken window by window.
"""

import csv
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jaxtyping import Array, Float, Int

from lesa_jax import demo
from lesa_jax.checkpoint.tokenizer import load_tokenizer
from lesa_jax.evaluation.protocol import token_rows
from lesa_jax.families.model import ModelConfig
from lesa_jax.families.roles import writes_residual
from lesa_jax.growth.splice import splice
from lesa_jax.initializers.lesa.svd import LayerSVD, layer_svd
from lesa_jax.models.decoder import embed, final_norm, head, make_context, run_layers
from lesa_jax.models.load import load_model
from lesa_jax.models.losses import token_nll
from lesa_jax.models.parts import layers_of
from lesa_jax.planning.plan import Plan

Tree = dict[str, Any]
NormSource = Literal["first", "previous", "next", "mean"]
BATCH = 8  # windows computed at once


@dataclass(frozen=True)
class Source:
    """Which model, judged on which text."""

    model: str | None = None
    """Checkpoint folder; by default the demo model."""
    text: Path | None = None
    """Held-out UTF-8 text; by default the demo model's own."""
    characters: int = 120_000
    """How much of the text counts."""
    sequence_length: int = 256
    """Tokens per window."""
    results: Path = Path("experiments/results")
    """Folder for the table and the picture."""


@dataclass(frozen=True)
class Subject:
    """A model in float32 and the windows that it is judged on."""

    name: str
    params: Tree
    config: ModelConfig
    tokens: Int[np.ndarray, "batches batch tokens"]

    @property
    def layers(self) -> Tree:
        return layers_of(self.params, self.config)

    @property
    def depth(self) -> int:
        return self.config.num_layers


class Grown(NamedTuple):
    """The layers of a grown model, and the first one that is new: what lies below is the base's own."""

    layers: Tree
    config: ModelConfig
    first_new: int


class Reading(NamedTuple):
    """Perplexity, and the mean loss of each window, in nats."""

    perplexity: float
    window_nll: Float[np.ndarray, " windows"]


def load_subject(source: Source) -> Subject:
    """Reads the model and cuts the text into whole batches of whole windows; the rest of the text is left out."""
    folder = demo.MODEL_DIRECTORY if source.model is None else Path(source.model)
    params, config = load_model(folder)
    text = demo.evaluation_text() if source.text is None else source.text.read_text(encoding="utf-8")
    rows = token_rows(load_tokenizer(folder), text[: source.characters], "corpus", config, source.sequence_length)
    tokens = whole_batches(rows, source.sequence_length)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    return Subject("demo" if source.model is None else folder.name, params, config, tokens)


def whole_batches(rows: Sequence[np.ndarray], length: int) -> Int[np.ndarray, "batches batch tokens"]:
    whole = [row for row in rows if len(row) == length]
    count = len(whole) // BATCH
    if not count:
        raise SystemExit(f"the text has {len(whole)} windows of {length} tokens; a batch needs {BATCH}")
    return np.stack(whole[: count * BATCH]).reshape(count, BATCH, length)


def weight_kinds(layers: Tree) -> dict[str, Float[Array, "layers out in"]]:
    """`self_attn.q_proj` and so on: the stacked matrices, which are what LESA predicts."""
    flat: dict[str, Any] = flatten_dict(layers, sep=".")
    return {name.removesuffix(".weight"): leaf for name, leaf in flat.items() if leaf.ndim == 3}


def short(kind: str) -> str:
    """`q` for `self_attn.q_proj`."""
    return kind.split(".")[-1].removesuffix("_proj")


def svd_bases(kinds: Mapping[str, Array]) -> dict[str, LayerSVD]:
    """The shared singular basis of every kind; the matrices stay as they are (`layer_svd` consumes what it gets)."""
    return {kind: layer_svd(jnp.array(w)) for kind, w in kinds.items()}


def raw_bases(kinds: Mapping[str, Array]) -> dict[str, LayerSVD]:
    """The trivial basis, in which a row of V is a row of the weights: LESA without SVD."""
    bases = {}
    for kind, w in kinds.items():
        out = w.shape[1]
        bases[kind] = LayerSVD(u=jnp.eye(out), s=jnp.ones(out), v=w, kept=jnp.ones(out, bool))
    return bases


def top_gaps(depth: int) -> tuple[int, ...]:
    """LESA's default place: the top gaps, half as many as layers."""
    return tuple(range(depth - 1 - depth // 2, depth - 1))


def frobenius(w: Float[Array, "*stack out in"]) -> Float[Array, "*stack"]:
    return jnp.sqrt(jnp.sum(jnp.square(w), axis=(-2, -1)))


def neighbour_norms(w: Float[Array, "layers out in"], gaps: Sequence[int]) -> Float[Array, " gaps"]:
    """The mean Frobenius norm of the two matrices around each gap."""
    norms, below = frobenius(w), np.array(gaps)
    return (norms[below] + norms[below + 1]) / 2


def norm_matched(
    new: Mapping[str, Array], kinds: Mapping[str, Array], gaps: Sequence[int]
) -> dict[str, Float[Array, "gaps out in"]]:
    """The new matrices, each scaled to its neighbours' mean Frobenius norm; zero stays zero.

    A method that predicts small matrices makes layers that do nothing, which costs nothing: only at equal norms do
    perplexities compare what was predicted.
    """
    matched = {}
    for kind, matrix in new.items():
        norms = frobenius(matrix)
        scale = jnp.where(norms > 0, neighbour_norms(kinds[kind], gaps) / jnp.where(norms > 0, norms, 1), 0)
        matched[kind] = matrix * scale[:, None, None]
    return matched


def gaussian_like(new: Mapping[str, Array], seed: int = 0) -> dict[str, Float[Array, "gaps out in"]]:
    """I.i.d. Gaussian matrices with the Frobenius norms of `new`: the control that knows sizes and nothing else."""
    rng, drawn = np.random.default_rng(seed), {}
    for kind, matrix in new.items():
        noise = jnp.asarray(rng.standard_normal(matrix.shape, np.float32))
        drawn[kind] = noise * (frobenius(matrix) / frobenius(noise))[:, None, None]
    return drawn


def copies(kinds: Mapping[str, Array], gaps: Sequence[int]) -> dict[str, Float[Array, "gaps out in"]]:
    """The matrices of the layer below each gap."""
    return {kind: w[np.array(gaps)] for kind, w in kinds.items()}


def averages(kinds: Mapping[str, Array], gaps: Sequence[int]) -> dict[str, Float[Array, "gaps out in"]]:
    return {kind: (w[np.array(gaps)] + w[np.array(gaps) + 1]) / 2 for kind, w in kinds.items()}


def new_layers(
    layers: Tree, gaps: Sequence[int], matrices: Mapping[str, Array], norm_source: NormSource, silent: bool = False
) -> Tree:
    """A tree of new layers: given matrices, and norm weights and biases taken from the originals.

    Args:
      layers: the base's stacked layers.
      gaps: for each new layer the layer below it.
      matrices: for every kind [gaps, out, in].
      norm_source: layer 0 (the public code), the layer below, the layer above, or the mean of these two.
      silent: zero whatever writes into the residual stream, which makes each new layer the identity.
    """
    below, flat = np.array(gaps), {}
    leaves: dict[str, Any] = flatten_dict(layers, sep=".")
    for name, leaf in leaves.items():
        if leaf.ndim == 3:
            new = matrices[name.removesuffix(".weight")]
        elif norm_source == "mean":
            new = (leaf[below] + leaf[below + 1]) / 2
        else:
            new = leaf[{"first": 0 * below, "previous": below, "next": below + 1}[norm_source]]
        flat[name] = jnp.zeros_like(new) if silent and writes_residual(name) else new
    return unflatten_dict(flat, sep=".")


def grow(subject: Subject, plan: Plan, new: Tree) -> Grown:
    """The grown model's layers; a new layer attends as far as the layer below it."""
    config = subject.config.of_layers([slot.layer for slot in plan.slots])
    return Grown(splice(subject.layers, new, plan), config, min(plan.new_layers))


def base(subject: Subject, first: int = 0) -> Grown:
    """The model itself, to be run from layer `first` on."""
    return Grown(subject.layers, subject.config, first)


def streams_at(subject: Subject, layer: int) -> Float[Array, "batches batch tokens hidden"]:
    """The base's residual stream at the input of `layer`, for all windows: what grows above starts there."""
    lower = jax.tree.map(lambda leaf: leaf[:layer], subject.layers)
    return _lower(subject.params, lower, subject.tokens, subject.config.of_layers(range(layer)))


def measure(
    subject: Subject, grown: Grown, start: Float[Array, "batches batch tokens hidden"] | None = None
) -> Reading:
    """Perplexity of a grown model.

    Args:
      start: `streams_at(subject, grown.first_new)`, when it is at hand; else everything is run.
    """
    skip = 0 if start is None else grown.first_new
    if start is None:
        start = streams_at(subject, 0)
    upper = jax.tree.map(lambda leaf: leaf[skip:], grown.layers)
    config = grown.config.of_layers(range(skip, grown.config.num_layers))
    losses = _upper(subject.params, upper, start, subject.tokens, config)
    window_nll = np.asarray(losses, np.float64).reshape(-1)
    return Reading(math.exp(window_nll.mean()), window_nll)


def against(reading: Reading, other: Reading) -> tuple[float, float]:
    """By how many percent the perplexity differs from the other's, and the standard error of that over windows."""
    difference = reading.window_nll - other.window_nll
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    change = math.exp(difference.mean())
    return 100 * (change - 1), float(100 * change * error)


@functools.partial(jax.jit, static_argnames="config")
def _lower(params: Tree, layers: Tree, tokens_NxBxT: Array, config: ModelConfig):
    positions = jnp.arange(tokens_NxBxT.shape[2])[None]
    context = make_context(positions, config)

    def run(tokens_BxT):
        x_BxTxE = embed(params, tokens_BxT, positions, config)
        return run_layers(layers, x_BxTxE, context, config) if config.num_layers else x_BxTxE

    return lax.map(run, tokens_NxBxT)


@functools.partial(jax.jit, static_argnames="config")
def _upper(params: Tree, layers: Tree, start_NxBxTxE, tokens_NxBxT, config: ModelConfig):
    context = make_context(jnp.arange(tokens_NxBxT.shape[2])[None], config)

    def losses(batch):
        x_BxTxE, tokens_BxT = batch
        return window_nll(params, run_layers(layers, x_BxTxE, context, config), tokens_BxT, config)

    return lax.map(losses, (start_NxBxTxE, tokens_NxBxT))


def window_nll(params: Tree, x_BxTxE: Array, tokens_BxT: Array, config: ModelConfig) -> Float[Array, " batch"]:
    """Mean loss of each window from the residual stream above the last layer."""
    hidden_BxTxE = final_norm(params, x_BxTxE, config)
    return jnp.mean(token_nll(hidden_BxTxE[:, :-1], head(params, config), tokens_BxT[:, 1:]), axis=1)


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One line a mapping; columns in order of first appearance, floats to six digits."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})
    print(f"wrote {path}", flush=True)
