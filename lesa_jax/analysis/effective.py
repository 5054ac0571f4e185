"""How much of its depth a model uses, by the published measures (Csordas et al. 2025; Hu, Zhou and Zhang 2512.14064).

Each effective depth is a layer's number; a ratio is one more than that over the number of layers.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lesa_jax.analysis.layers import LayerMeasures

KL_SHARE, OVERLAP = 0.5, 0.3  # the published code's


def depth_score(effects: Float[np.ndarray, "layers layers"]) -> float | None:
    """The mean layer, weighted by how much later layers change without it; None where none changes."""
    return weighted_layer(mean_effects(effects))


def mean_effects(effects: Float[np.ndarray, "layers layers"]) -> Float[np.ndarray, " layers"]:
    """How much later layers change without each one, a mean over these."""
    layers = len(effects)
    return effects.sum(axis=1) / np.maximum(1, layers - 1 - np.arange(layers))


def weighted_layer(weights: Float[np.ndarray, " layers"]) -> float | None:
    """The mean layer by weights that are not negative; None where all are 0."""
    total = weights.sum()
    return float(np.arange(len(weights)) @ weights / total) if total > 0 else None


def by_cosine(layers: Sequence[LayerMeasures]) -> int | None:
    """The last layer after which what is written turns from erasing to amplifying; None where there is no such one."""
    means = [(layer.attention_cosine + layer.feed_forward_cosine + layer.layer_cosine) / 3 for layer in layers]
    turns = [number for number in range(len(means) - 1) if means[number] < 0 <= means[number + 1]]
    return turns[-1] if turns else None


def by_divergence(layers: Sequence[LayerMeasures]) -> int:
    """The first layer before which the prediction is nearer to the model's than half of the largest divergence."""
    values = np.array([layer.lens_kl for layer in layers])
    below = np.flatnonzero(values < KL_SHARE * values.max())
    return int(below[0]) if len(below) else len(layers)


def by_last_divergence(layers: Sequence[LayerMeasures]) -> int:
    """The layer from which on it stays nearer: divergence does not fall all the way, and may dip early."""
    values = np.array([layer.lens_kl for layer in layers])
    return int(np.flatnonzero(values >= KL_SHARE * values.max())[-1]) + 1


def by_overlap(layers: Sequence[LayerMeasures]) -> int:
    """The first layer before which enough of the likeliest tokens are the model's."""
    above = [number for number, layer in enumerate(layers) if layer.lens_overlap > OVERLAP]
    return above[0] if above else len(layers)
