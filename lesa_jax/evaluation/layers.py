"""How much each layer of a model matters on a text: to the loss, and to the residual stream."""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.evaluation.bypass import follow, stream_loss
from lesa_jax.evaluation.vectors import Stream, influences
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.streams import embedded, hidden_states, read_head


def bypass_costs(
    checkpoint: Checkpoint, config: ModelConfig, rows: Int[np.ndarray, "rows tokens"], advance: Callable[[int], None]
) -> Float[np.ndarray, " layers"]:
    """What the loss gains when a layer is passed by, nats a token: its importance (ADEPT, arXiv 2510.10071).

    Args:
      checkpoint, config: of a decoder; its weights are read layer by layer (`bypass.follow`).
      rows: of a text.
      advance: is called with 1 for each layer.
    """
    costs, tokens = np.zeros(config.num_layers), jnp.asarray(rows)
    with jax.default_matmul_precision("highest"):
        start, (outside, head) = embedded(checkpoint, config, rows), read_head(checkpoint, config)
        for moment in follow(checkpoint, config, *start, jnp.ones(rows.shape, bool)):
            if moment.layer < config.num_layers - 1:
                continue
            whole = float(stream_loss(outside, head, moment.after, tokens, config))
            for missing, (_, end) in moment.without.items():
                costs[missing] = float(stream_loss(outside, head, end, tokens, config)) - whole
                advance(1)
    return costs


def block_influence(
    checkpoint: Checkpoint, config: ModelConfig, rows: Int[np.ndarray, "rows tokens"], advance: Callable[[int], None]
) -> Float[np.ndarray, " layers"]:
    """One minus the cosine of the residual stream before and behind each layer, a mean over tokens (ShortGPT, arXiv
    2403.03853): 0 of a layer that changes no direction.

    Args:
      checkpoint, config: of a decoder; its weights are read layer by layer.
      rows: of a text.
      advance: is called with 1 after each layer.
    """
    found = []
    for before, after in pairwise(hidden_states(checkpoint, config, rows)):
        found.append(float(mean_influence(before, after)))
        advance(1)
    return np.array(found)


@jax.jit
def mean_influence(before: Stream, after: Stream) -> Float[Array, ""]:
    """Block Influence of a layer by the streams before and behind it."""
    return jnp.mean(influences(before, after))
