"""What becomes of later layers and of the prediction when one layer is passed by.

A layer's effect on the future (Csordas et al. 2025) is measured at later tokens when only earlier ones pass it by: what
they have written down there, and others read. What the loss loses without it is `evaluation.layers.bypass_costs`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lesa_jax.analysis.layers import CHUNK
from lesa_jax.checkpoint.names import Tree
from lesa_jax.evaluation.bypass import Mask, Moment
from lesa_jax.evaluation.vectors import Stream, shares
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.decoder import final_norm
from lesa_jax.models.losses import Head, logits_of

FIRST = 8  # tokens at least that come before those at which effects are measured
LAST = 4  # tokens at least at which they are
SEED = 123  # of where that is


class Effects(NamedTuple):
    """Of every layer's absence.

    Attributes:
      layers: [missing, later layer]: the largest change of what the later one adds, over what it adds; 0 of others.
      output: the largest distance between the probabilities that are predicted.
    """

    layers: Float[np.ndarray, "layers layers"]
    output: Float[np.ndarray, " layers"]


def no_effects(layers: int) -> Effects:
    """To be filled by `note_change` and `note_distance`."""
    return Effects(np.zeros((layers, layers)), np.zeros(layers))


def cut_rows(rows: int, tokens: int) -> tuple[Mask, Mask]:
    """The tokens that pass a layer by, all but the first up to some place in each row, and those from there on."""
    starts = np.random.default_rng(SEED).integers(FIRST, tokens - LAST, rows)
    later = np.arange(tokens) >= starts[:, None]
    return jnp.asarray(~later & (np.arange(tokens) > 0)), jnp.asarray(later)


def note_change(found: Effects, moment: Moment, later: Mask) -> None:
    """Writes down how a layer's part changes with each one that is missing below it."""
    for missing, streams in moment.without.items():
        found.layers[missing, moment.layer] = float(_change(moment.before, moment.after, *streams, later))


def note_distance(found: Effects, moment: Moment, later: Mask, outside: Tree, head: Head, config: ModelConfig) -> None:
    """Writes down, at the last layer, how far predictions are from those of the whole model."""
    for missing, (_, end) in moment.without.items():
        found.output[missing] = float(_distance(outside, head, moment.after, end, later, config))


@jax.jit
def _change(before: Stream, after: Stream, without_before: Stream, without_after: Stream, later: Mask) -> Array:
    """The largest change at later tokens of what a layer adds, over what it adds."""
    added = after - before
    return jnp.max(jnp.where(later, shares(without_after - without_before - added, added), 0))


@functools.partial(jax.jit, static_argnames="config")
def _distance(outside: Tree, head: Head, end: Stream, without: Stream, later: Mask, config: ModelConfig) -> Array:
    """The largest distance at later tokens of predicted probabilities; some tokens' logits at a time."""

    def of_token(pair: tuple[Array, Array]) -> Array:
        ours, theirs = (jax.nn.softmax(logits_of(hidden, head)) for hidden in pair)
        return jnp.linalg.norm(ours - theirs)

    pair = tuple(final_norm(outside, x, config).reshape(-1, x.shape[-1]) for x in (end, without))
    found = jax.lax.map(of_token, pair, batch_size=CHUNK)
    return jnp.max(jnp.where(later.reshape(-1), found, 0))
