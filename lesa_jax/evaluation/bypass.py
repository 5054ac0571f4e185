"""A model run without each of its layers in turn, straight from its files, a layer in memory at a time.

What is followed is one residual stream for each missing layer, and that of the whole model beside them. All of them at
once would need memory that grows with depth, so they go in groups whose streams fit into `STREAM_BYTES`. A group starts
where its first layer stands: below that nothing is missing, and the whole model's stream is there from the group
before. So a model whose streams all fit is read once, and one of twice the depth takes no more memory. (Groups of rows
with all layers missing at once would hold as much, and read every layer for every group.)
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lesa_jax.checkpoint.names import Tree
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.evaluation.vectors import Stream
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.decoder import Context, final_norm
from lesa_jax.models.losses import Head, token_nll
from lesa_jax.models.streams import alike, read_layer, run_layer
from lesa_jax.models.views import view_of

STREAM_BYTES = 1 << 28  # of residual streams that are followed at a time, before and behind a layer

Mask: TypeAlias = Bool[Array, "rows tokens"]


class Moment(NamedTuple):
    """The streams before and behind one layer: the whole model's, and those that lack one of the layers up to here."""

    layer: int
    before: Stream
    after: Stream
    without: dict[int, tuple[Stream, Stream]]


def follow(
    checkpoint: Checkpoint, config: ModelConfig, start: Stream, context: Context, mask: Mask
) -> Iterator[Moment]:
    """The model without each of its layers, which the tokens in the mask pass by.

    Args:
      checkpoint, config: of a decoder.
      start, context: its residual stream before the first layer, and what all layers see.
      mask: the tokens that pass the missing layer by; the others are worked on by all.

    Yields:
      For each group the moments from its first layer to the last one. The first group starts at layer 0, so that it
      shows the whole model's stream before every layer.
    """
    count = config.num_layers
    size = max(1, STREAM_BYTES // (2 * start.nbytes))
    for first in range(0, count, size):
        x, streams = start, dict[int, Stream]()
        for layer in range(first, count):
            tree, seen = read_layer(checkpoint, config, layer), view_of(config, layer)
            run = functools.partial(run_layer, tree, context=context, seen=seen, config=alike(config, layer))
            after, without = run(x), {number: (stream, run(stream)) for number, stream in streams.items()}
            if layer < first + size:
                without[layer] = x, jnp.where(mask[..., None], x, after)
            # Else the next layers would be read while this one still runs, and lie in memory together.
            jax.block_until_ready((after, without))
            yield Moment(layer, x, after, without)
            x, streams = after, {number: behind for number, (_, behind) in without.items()}
            if layer == first + size - 1:
                start = x


@functools.partial(jax.jit, static_argnames="config")
def stream_loss(
    outside: Tree, head: Head, last: Stream, rows: Int[Array, "rows tokens"], config: ModelConfig
) -> Float[Array, ""]:
    """Mean loss, in nats, of what a stream behind the last layer predicts; parts as `streams.read_head` gives them."""
    return token_nll(final_norm(outside, last, config)[:, :-1], head, rows[:, 1:]).mean()
