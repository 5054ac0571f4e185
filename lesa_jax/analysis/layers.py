"""What each layer does to the residual stream on a text.

Definitions: angles, their successive differences and the projection on the way from embedding to end are those of
inverse depth scaling (arXiv 2602.05970); contributions and residual cosines of "Do language models use their depth
efficiently?" (Csordas et al. 2025); Block Influence of ShortGPT (arXiv 2403.03853); the lens reads the stream before a
layer by the final norm and the head (logit lens), `shortcut_loss` through the last layer in between. Means over all
tokens, in float32.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lesa_jax.checkpoint.names import Tree
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.evaluation.bypass import stream_loss
from lesa_jax.evaluation.layers import mean_influence
from lesa_jax.evaluation.vectors import Stream, angles, cosines, lengths, shares
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.decoder import Context, attend, block, final_norm
from lesa_jax.models.losses import Head, logits_of
from lesa_jax.models.streams import alike, read_head, read_layer, run_layer
from lesa_jax.models.views import View, view_of

TOP = 5  # tokens that two predictions are compared by
CHUNK = 256  # tokens whose logits exist at a time

Numbers: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class LayerMeasures:
    """One layer, means over tokens; angles in radians, losses and divergences in nats.

    Attributes:
      angle: by which the layer turns the stream.
      update_angle: between what it adds and what the next one adds; None of the last.
      block_influence: one minus the cosine of the stream before and behind it.
      norm: length of the stream before it.
      attention, feed_forward, contribution: length of what each half adds, and both, over that of the stream before.
      attention_cosine, feed_forward_cosine, layer_cosine: of the same with that stream: above 0 it amplifies what is
        there, below 0 it erases, about 0 it writes something new.
      angle_to_end: of the stream before the layer with that behind the last.
      projection: of what was added so far on all that will have been added, 0 at the embedding and 1 at the end.
      lens_kl: divergence of what the stream before the layer predicts from what the model predicts.
      lens_overlap: share of the five likeliest tokens that both have in common.
      shortcut_loss: of what the last layer makes of that stream.
    """

    angle: float
    update_angle: float | None
    block_influence: float
    norm: float
    attention: float
    feed_forward: float
    contribution: float
    attention_cosine: float
    feed_forward_cosine: float
    layer_cosine: float
    angle_to_end: float
    projection: float
    lens_kl: float
    lens_overlap: float
    shortcut_loss: float


class Walked(NamedTuple):
    """A walk through all layers.

    Attributes:
      turns: of each layer what can be told of it by itself, by the names of `LayerMeasures`.
      last: the stream behind the last one.
      tips: each row's last token in the stream before every layer, and behind the last.
    """

    turns: list[Numbers]
    last: Stream
    tips: Float[Array, "streams rows hidden"]


def walk(
    checkpoint: Checkpoint, config: ModelConfig, start: Stream, context: Context, advance: Callable[[int], None]
) -> Walked:
    """One pass over the model's files, layer by layer.

    Args:
      checkpoint, config: of a decoder.
      start, context: its residual stream before the first layer, and what all layers see.
      advance: is called with 1 after each layer.
    """
    turns, tips, added, last = list[Numbers](), [start[:, -1]], None, start
    for before, attended, after in steps(checkpoint, config, start, context):
        turns.append(numbers(_turn(before, attended, after)))
        if added is not None:
            turns[-2]["update_angle"] = float(jnp.mean(angles(added, after - before)))
        added, last = after - before, after
        tips.append(last[:, -1])
        advance(1)
    return Walked(turns, last, jnp.stack(tips))


def numbers(values: dict[str, Float[Array, ""]]) -> Numbers:
    """On the host; waits until they are known, before anything more is read."""
    return {name: float(value) for name, value in values.items()}


def steps(checkpoint: Checkpoint, config: ModelConfig, x: Stream, context: Context) -> Iterator[tuple[Stream, ...]]:
    """The stream before each layer, with what attention adds, and behind the layer.

    Where both halves of a layer read the same stream, the feed-forward network's part counts as added second.
    """
    for layer in range(config.num_layers):
        attended, after = _halves(
            read_layer(checkpoint, config, layer), x, context, view_of(config, layer), alike(config, layer)
        )
        yield x, attended, after
        x = after


@functools.partial(jax.jit, static_argnames=("seen", "config"))
def _halves(layer: Tree, x: Stream, context: Context, seen: View, config: ModelConfig) -> tuple[Stream, Stream]:
    return attend(layer, x, context, seen, config)[0], block(layer, x, context, seen, config)


@jax.jit
def _turn(before: Stream, attended: Stream, after: Stream) -> dict[str, Float[Array, ""]]:
    """What can be told of a layer by itself."""
    attention, feed_forward, whole = attended - before, after - attended, after - before
    values = {
        "angle": angles(before, after),
        "norm": lengths(before),
        "attention": shares(attention, before),
        "feed_forward": shares(feed_forward, attended),
        "contribution": shares(whole, before),
        "attention_cosine": cosines(attention, before),
        "feed_forward_cosine": cosines(feed_forward, attended),
        "layer_cosine": cosines(whole, before),
    }
    return jax.tree.map(jnp.mean, values) | {"block_influence": mean_influence(before, after)}


class Goal(NamedTuple):
    """What the stream before a layer is held against.

    Attributes:
      first, last: the streams before the first layer and behind the last one.
      context, tokens: what all layers see, and what is predicted.
      outside, head: what makes logits, see `streams.read_head`.
      top: the last layer.
    """

    first: Stream
    last: Stream
    context: Context
    tokens: Int[Array, "rows tokens"]
    outside: Tree
    head: Head
    top: Tree


def find_goal(
    checkpoint: Checkpoint, config: ModelConfig, first: Stream, last: Stream, context: Context, tokens: Array
) -> Goal:
    """Reads the head and the last layer."""
    outside, head = read_head(checkpoint, config)
    return Goal(first, last, context, tokens, outside, head, read_layer(checkpoint, config, config.num_layers - 1))


def standing(before: Stream, goal: Goal, config: ModelConfig) -> Numbers:
    """Where a layer stands: the rest of its `LayerMeasures`, by the stream before it."""
    top = config.num_layers - 1
    shortcut = run_layer(goal.top, before, goal.context, view_of(config, top), alike(config, top))
    return numbers(
        _way(before, goal.first, goal.last)
        | _lens(goal.outside, goal.head, before, goal.last, config)
        | {"shortcut_loss": stream_loss(goal.outside, goal.head, shortcut, goal.tokens, config)}
    )


@jax.jit
def _way(before: Stream, first: Stream, last: Stream) -> dict[str, Float[Array, ""]]:
    """How far it is from the embedding to the end."""
    way, added = last - first, before - first
    square = jnp.sum(way * way, axis=-1)
    projection = jnp.sum(added * way, axis=-1) / jnp.where(square > 0, square, 1)
    return {"angle_to_end": jnp.mean(angles(before, last)), "projection": jnp.mean(projection)}


@functools.partial(jax.jit, static_argnames="config")
def _lens(outside: Tree, head: Head, before: Stream, last: Stream, config: ModelConfig) -> dict[str, Float[Array, ""]]:
    """Divergence and overlap of two predictions, the stream's and the model's; some tokens' logits at a time."""

    # Of one token.
    def compare(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        lens, model = (jax.nn.log_softmax(logits_of(hidden, head)) for hidden in pair)
        kl = jnp.sum(jnp.exp(lens) * (lens - model), axis=-1)
        ours, theirs = (jax.lax.top_k(logits, TOP)[1] for logits in (lens, model))
        return kl, jnp.mean(jnp.any(ours[:, None] == theirs[None], axis=-1))

    pair = [final_norm(outside, x, config).reshape(-1, x.shape[-1]) for x in (before, last)]
    kl, overlap = jax.lax.map(compare, tuple(pair), batch_size=CHUNK)
    return {"lens_kl": jnp.mean(kl), "lens_overlap": jnp.mean(overlap)}
