"""All that is measured on a text, with each layer read as often as memory makes necessary.

One walk through the layers finds where the stream ends. The next one, without each layer in turn, also passes all that
is to be held against that end. Both see the whole model's streams one after the other and keep none.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from lesa_jax.analysis.blocks import block_distances
from lesa_jax.analysis.effects import Effects, cut_rows, no_effects, note_change, note_distance
from lesa_jax.analysis.layers import LayerMeasures, find_goal, standing, walk
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.evaluation.bypass import follow
from lesa_jax.evaluation.layers import bypass_costs
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.streams import embedded


class Measured(NamedTuple):
    """Of one model on one text.

    Attributes:
      layers: what each layer does.
      importance: what the loss gains, nats a token, when all tokens pass a layer by.
      effects: of each layer's absence at earlier tokens on later ones.
      blocks: for every size from 1 on how far blocks of so many layers turn the stream, see `blocks.block_distances`.
    """

    layers: tuple[LayerMeasures, ...]
    importance: Float[np.ndarray, " layers"]
    effects: Effects
    blocks: tuple[Float[np.ndarray, " _"], ...]


def measure(
    checkpoint: Checkpoint, config: ModelConfig, rows: Int[np.ndarray, "rows tokens"], advance: Callable[[int], None]
) -> Measured:
    """All layers of a decoder on the rows of a text.

    Args:
      checkpoint, config: of the model. If the streams without each layer fit into `bypass.STREAM_BYTES` its layers are
        read three times: on the walk, for effects, for importance; else the latter two once for each group.
      rows: of tokens, more than `effects.FIRST + effects.LAST`.
      advance: is called with 1 for each of three times as many steps as there are layers.
    """
    tokens, (earlier, later) = jnp.asarray(rows), cut_rows(*rows.shape)
    with jax.default_matmul_precision("highest"):
        start, context = embedded(checkpoint, config, rows)
        walked = walk(checkpoint, config, start, context, advance)
        goal = find_goal(checkpoint, config, start, walked.last, context, tokens)
        places, effects = list[dict[str, float]](), no_effects(config.num_layers)
        for moment in follow(checkpoint, config, start, context, earlier):
            if moment.layer == len(places):  # the first group passes every layer
                places.append(standing(moment.before, goal, config))
            note_change(effects, moment, later)
            if moment.layer == config.num_layers - 1:
                note_distance(effects, moment, later, goal.outside, goal.head, config)
                advance(len(moment.without))
        blocks = block_distances(walked.tips)
    unknown: dict[str, Any] = {"update_angle": None}  # of the last layer
    both = zip(walked.turns, places, strict=True)
    layers = tuple(LayerMeasures(**(unknown | turn | place)) for turn, place in both)
    return Measured(layers, bypass_costs(checkpoint, config, rows, advance), effects, blocks)
