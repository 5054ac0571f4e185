"""Which expert of a layer is which of the next one: the experts of two layers were numbered by chance.

A layer's new number for an expert is a role; what goes by role may be averaged or predicted from layer to layer, and
the rows of routers go with their experts.
"""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import Checkpoint, read
from lesa_jax.families.model import Experts, ModelConfig
from lesa_jax.growth.orders import Orders
from lesa_jax.models.parts import layer_tensor

SKETCH = 64  # directions of the residual stream that experts are compared along

Features: TypeAlias = Float[np.ndarray, "experts numbers"]


def experts_of(model: ModelConfig | None, option: str) -> Experts:
    """The model's mixture of experts, which an option is about.

    Raises:
      InputError: it has none, or nobody knows.
    """
    if model is None or model.experts is None:
        raise InputError(
            f"{option}: is for mixtures of experts that run here, and this model is none; use --method lesa or average"
        )
    return model.experts


def match_experts(features: Iterable[tuple[int, Features]]) -> Orders:
    """The roles of all experts: in each run of layers, those of the first one are its numbers.

    From layer to layer roles go to the experts that are likest, in the best assignment of all.

    Args:
      features: of each layer that has experts, in ascending order, what tells them apart.
    """
    orders: dict[int, tuple[int, ...]] = {}
    below: Features | None = None
    for layer, own in features:
        order = assign(below, own) if below is not None and layer - 1 in orders else np.arange(len(own))
        orders[layer], below = tuple(order.tolist()), own[order]
    return orders


def assign(below: Features, above: Features) -> np.ndarray:
    """For each role below the expert above that takes it, so that the sum of their likenesses is largest."""
    from scipy.optimize import linear_sum_assignment  # copying does without

    return linear_sum_assignment(below @ above.T, maximize=True)[1]


def by_weights(checkpoint: Checkpoint, model: ModelConfig, experts: Experts) -> Iterator[tuple[int, Features]]:
    """Experts are alike that have like weights; see `weight_features`."""
    for layer in range(model.num_layers):
        if model.is_sparse(layer):
            yield layer, weight_features(checkpoint, model, experts, layer)


def by_tokens(
    checkpoint: Checkpoint, model: ModelConfig, experts: Experts, tokens: Int[np.ndarray, "rows tokens"]
) -> Iterator[tuple[int, Features]]:
    """Experts are alike that the same tokens go through: their likeness is the correlation of being chosen."""
    from lesa_jax.models.streams import routings  # JAX, which matching by weights does without

    for layer, routing in routings(checkpoint, model, tokens):
        chosen = np.asarray(routing.chosen).reshape(-1, experts.per_token)
        hits = (chosen[:, :, None] == np.arange(experts.number)).any(axis=1).astype(np.float32)
        yield layer, unit((hits - hits.mean(axis=0)).T)


def weight_features(checkpoint: Checkpoint, model: ModelConfig, experts: Experts, layer: int) -> Features:
    """What tells a layer's experts apart, whatever the order of their neurons: their likeness is a dot product.

    Of each matrix W with the residual stream along its columns it is W'W, seen along some directions of the stream, and
    of the router an expert's row; each less the experts' mean, and of length 1.
    """
    names, hidden = experts.names, model.hidden_size
    directions = np.eye(hidden, dtype=np.float32)
    if hidden > SKETCH:
        directions = np.linalg.qr(np.random.default_rng(0).standard_normal((hidden, SKETCH)))[0].astype(np.float32)
    found = [read(checkpoint, layer_tensor(model, layer, f"{names.router}.weight")).astype(np.float32)]
    for name in (names.gate, names.up, names.gate_up, names.down):
        if name is not None:
            grams = []
            for matrix in expert_tensors(checkpoint, model, experts, layer, name):
                seen = (matrix.T if name == names.down else matrix).astype(np.float32) @ directions
                grams.append((seen.T @ seen).ravel())
            found.append(np.stack(grams))
    return np.concatenate([unit(block - block.mean(axis=0)) for block in found], axis=1)


def unit(rows: Features) -> Features:
    """Rows of length 1; zeros stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def expert_tensors(checkpoint: Checkpoint, model: ModelConfig, experts: Experts, layer: int, name: str):
    """A layer's matrices of one name, expert by expert, read when their turn comes."""
    whole = layer_tensor(model, layer, f"{name}.weight")
    if "*" not in name:
        yield from read(checkpoint, whole)
        return
    for expert in range(experts.number):
        yield read(checkpoint, whole.replace("*", str(expert)))
