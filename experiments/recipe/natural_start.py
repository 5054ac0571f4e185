"""One natural-gradient step for the silenced outputs of a grown Llama, before any training: K-FAC (arXiv 1503.05671).

Command:   python experiments/recipe/natural_start.py --model grown --text known.txt --output grown-natural
           `frontier.py` makes such models, too, and trains them.
Run time:  a few seconds for a small model, a minute on 2 CPU cores for SmolLM2's 45 layers.
Expected:  the loss on the text's first tokens, before and after; a checkpoint in which o_proj and down_proj of the new
           layers are no longer zero.

Where a layer is silent the loss's gradient for an output projection W is the mean of g a^T over tokens, a what W reads
and g the loss's gradient for the residual stream there. With A and G the mean of a a^T and g g^T the step is
-rate (G + d I)^-1 (mean of g a^T) (A + d I)^-1, d a share of the factor's own mean eigenvalue. Rate and share are those
of a grid whose loss, on the very tokens, is least; where none is better than no step there is none. These
tokens are training data: whoever compares has to count them.
"""

import functools
import itertools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int
from safetensors.numpy import load_file, save_file

from lesa_jax.evaluation.sample import sample_rows
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.decoder import (
    attend_by,
    block,
    embed,
    feed_forward,
    final_norm,
    head,
    look_back,
    make_context,
)
from lesa_jax.models.load import load_model
from lesa_jax.models.losses import token_nll
from lesa_jax.models.parts import layers_of
from lesa_jax.models.views import view, views
from lesa_jax.planning.record import read_growth

Tree = dict[str, Any]
OUTPUTS = ("self_attn.o_proj", "mlp.down_proj")
RATES = (0.03, 0.1, 0.3, 1.0)  # of the step; 1 is Newton's
DAMPINGS = (0.01, 0.1, 1.0)  # of the factors' mean eigenvalues


@dataclass(frozen=True)
class Settings:
    """Which model, on which text."""

    model: Path
    text: Path
    output: Path
    tokens: int = 16_384


def main(settings: Settings) -> None:
    losses = natural_start(settings.model, settings.text.read_text(encoding="utf-8"), settings.output, settings.tokens)
    print("loss on the text's first tokens: {:.4f} -> {:.4f}".format(*losses))


def natural_start(model: Path, text: str, output: Path, tokens: int) -> tuple[float, float]:
    """Writes the model with its step taken; returns the losses without and with it, nats a token."""
    params, config = load_model(model)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    rows = jnp.asarray(sample_rows(model, text, config, tokens))
    new = read_growth(model, config.num_layers).plan.new_layers
    before = float(loss_of(params, rows, config))
    moments = statistics(params, rows, new, config)
    best, taken = before, {}
    for rate, damping in itertools.product(RATES, DAMPINGS):
        step = {kind: natural_step(a, g, slope, rate, damping) for kind, (a, g, slope) in moments.items()}
        if (loss := float(loss_of(stepped(params, step, new), rows, config))) < best:
            best, taken = loss, step
    shutil.copytree(model, output)
    file = output / "model.safetensors"
    tensors = load_file(file)
    for kind, step in taken.items():
        for layer, w in zip(new, np.asarray(step), strict=True):
            name = f"model.layers.{layer}.{kind}.weight"
            tensors[name] = w.astype(tensors[name].dtype)
    save_file(tensors, file, metadata={"format": "pt"})
    return before, best


@functools.partial(jax.jit, static_argnames="config")
def loss_of(params: Tree, rows: Int[Array, "rows tokens"], config: ModelConfig) -> Float[Array, ""]:
    """Nats a token."""
    return jax.lax.map(lambda row: stream_loss(params, row[None], config)[0], rows).mean()


def stream_loss(
    params: Tree, tokens: Int[Array, "1 tokens"], config: ModelConfig, added: Float[Array, "layers ..."] | None = None
) -> tuple[Array, Array]:
    """The mean loss of a row, and the residual streams that enter the layers; `added` comes on top of each layer."""
    positions = jnp.arange(tokens.shape[1])[None]
    x_BxTxE, context = embed(params, tokens, positions, config), make_context(positions, config)
    shared, arrays = views(config, range(config.num_layers))
    added = jnp.zeros((config.num_layers, 1, 1, 1)) if added is None else added

    def step(x: Array, scanned: Any) -> tuple[Array, Array]:
        layer, own, more = scanned
        return block(layer, x, context, view(shared, own), config) + more, x

    x_BxTxE, streams = jax.lax.scan(step, x_BxTxE, (layers_of(params, config), arrays, added))
    hidden_BxTxE = final_norm(params, x_BxTxE, config)
    return token_nll(hidden_BxTxE[:, :-1], head(params, config), tokens[:, 1:]).mean(), streams


@functools.partial(jax.jit, static_argnames=("new", "config"))
def statistics(
    params: Tree, rows: Int[Array, "rows tokens"], new: tuple[int, ...], config: ModelConfig
) -> Mapping[str, tuple[Array, Array, Array]]:
    """For each kind A [new, in, in], G [new, hidden, hidden] and the gradient [new, hidden, in], means over tokens."""
    shared, arrays = views(config, range(config.num_layers))
    layers, own = jax.tree.map(lambda leaf: leaf[np.array(new)], (layers_of(params, config), arrays))

    def of_row(row: Array) -> Any:
        tokens = row[None]
        context = make_context(jnp.arange(tokens.shape[1])[None], config)
        zero = jnp.zeros((config.num_layers, 1, tokens.shape[1], config.hidden_size))
        g, streams = jax.grad(lambda e: stream_loss(params, tokens, config, e), has_aux=True)(zero)
        # The loss is a mean over tokens; what one token adds to it is as many times the gradient.
        g_LxTxE, x_LxBxTxE = g[np.array(new), 0] * (tokens.shape[1] - 1), streams[np.array(new)]

        def inputs(layer: Tree, x: Array, seen: Any) -> tuple[Array, Array]:
            return read_by_outputs(layer, x, context, view(shared, seen), config)

        read = jax.vmap(inputs)(layers, x_LxBxTxE, own)
        return {
            kind: tuple(map(mean_product, (a, g_LxTxE, g_LxTxE), (a, g_LxTxE, a)))
            for kind, a in zip(OUTPUTS, read, strict=True)
        }

    return jax.tree.map(lambda leaf: leaf.mean(axis=0), jax.lax.map(of_row, rows))


def mean_product(x_LxTxI: Array, y_LxTxJ: Array) -> Array:
    """The mean over tokens of x y^T, for each layer."""
    return jnp.einsum("lti,ltj->lij", x_LxTxI, y_LxTxJ) / x_LxTxI.shape[1]


def read_by_outputs(layer: Tree, x: Array, context: Any, seen: Any, config: ModelConfig) -> tuple[Array, Array]:
    """What o_proj and down_proj of a layer read, [tokens, in]; the latter comes out of a slice of the identity."""

    def look(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
        mixed = look_back(q, k, v, context, seen, config)
        return mixed, mixed

    _, read, mixed = attend_by(look, layer, x, seen, config)
    return mixed[0].reshape(x.shape[1], -1), opened(layer, lambda open_layer: feed_forward(open_layer, read, config))


def opened(layer: Tree, run: Callable[[Tree], Array]) -> Array:
    """The input of down_proj: `run` of the layer with each slice of the identity, as high as the stream."""
    flat: dict[str, Any] = flatten_dict(layer, sep=".")
    name = f"{OUTPUTS[1]}.weight"
    height, width = flat[name].shape
    slices = [jnp.eye(height, width, start) for start in range(0, width, height)]
    parts = [run(unflatten_dict(flat | {name: part}, sep="."))[0] for part in slices]
    return jnp.concatenate(parts, axis=1)[:, :width]


def natural_step(a: Array, g: Array, gradient: Array, rate: float, damping: float) -> Array:
    """The step of one kind, [new, hidden, in], in float64."""
    found = []
    for own_a, own_g, own in zip(*(np.asarray(x, np.float64) for x in (a, g, gradient)), strict=True):
        left, right = damped(own_g, damping), damped(own_a, damping)
        found.append(-rate * np.linalg.solve(left, np.linalg.solve(right, own.T).T))
    return jnp.asarray(np.stack(found), jnp.float32)


def damped(factor: np.ndarray, damping: float) -> np.ndarray:
    """With so much of its mean eigenvalue on the diagonal."""
    return factor + damping * np.trace(factor) / len(factor) * np.eye(len(factor))


def stepped(params: Tree, step: Mapping[str, Array], new: tuple[int, ...]) -> Tree:
    """The model with these output projections in its new layers."""
    flat: dict[str, Any] = flatten_dict(params, sep=".")
    for kind, w in step.items():
        name = f"model.layers.{kind}.weight"
        flat[name] = flat[name].at[np.array(new)].set(w)
    return unflatten_dict(flat, sep=".")


if __name__ == "__main__":
    main(tyro.cli(Settings))
