"""What a training step costs: floating-point operations and bytes, with frozen layers counted as what they are.

XLA's own count takes a scan's body once, however often it runs, so the count here is by formula. A matrix product with
a weight of P numbers is 2 P operations a token forward, 2 P for its input's gradient and 2 P for its weight's. Frozen
weights have no third term; what lies below the first trained tensor has neither gradient.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.typing import DTypeLike

from lesa_jax.families.model import ModelConfig
from lesa_jax.models.parts import input_tensors, output_tensor
from lesa_jax.training.parameters import Leaf
from lesa_jax.training.peaks import peak_of

TYPICAL_USE = 0.4  # of the peak, by a training step: for a first estimate


@dataclass(frozen=True)
class Cost:
    """Operations of one token: forward, and gradients. Additions and multiplications count one each.

    `backward_depth` is the number of layers that have a backward pass: all above the first trained tensor.
    """

    forward: float
    backward: float
    backward_depth: int

    @property
    def total(self) -> float:
        return self.forward + self.backward


def token_cost(config: ModelConfig, leaves: Sequence[Leaf], sequence_length: int) -> Cost:
    """Operations of one token in training, as a mean over a sequence that is one document.

    Recomputation (`--remat`) is not counted: it is no use of the model, so that MFU compares.
    """
    weights: dict[int, float] = {}
    trained: dict[int, float] = {}
    touched = []  # layers with any trained tensor, norms included
    for leaf in leaves:
        size = math.prod(leaf.tensor.shape) if leaf.tensor.role == "matrix" else 0
        for layer in leaf.layers:
            weights[layer] = weights.get(layer, 0) + size
            trained[layer] = trained.get(layer, 0) + size * leaf.trained
            touched += [layer] * leaf.trained
    outside = {leaf.names[0] for leaf in leaves if leaf.trained and not leaf.stacked}
    # A tied embedding lies above all layers, too.
    first = min(touched, default=config.num_layers) if outside.isdisjoint(input_tensors(config)) else 0
    head = config.vocab_size * config.hidden_size
    train_head = output_tensor(config) in outside
    # Outside the layers only the final norm lies between them and the head.
    below_head = first < config.num_layers or any(name.startswith(config.names.final_norm) for name in outside)

    forward = 2.0 * head
    backward = 2.0 * head * below_head + 2.0 * head * train_head
    for layer in range(config.num_layers):
        reach = min(sequence_length, config.windows[layer] or sequence_length)
        seen = reach - reach * (reach - 1) / (2 * sequence_length)  # the mean over a sequence that fills up
        attention = 4 * seen * config.num_heads * config.head_dim
        forward += 2 * weights[layer] + attention
        if layer >= first:
            backward += 2 * weights[layer] + 2 * attention + 2 * trained[layer]
    return Cost(forward, backward, config.num_layers - first)


def device_peak() -> float | None:
    """Operations a second of one device by its data sheet; None where that is not known, as of a CPU."""
    return peak_of(jax.devices()[0].device_kind)


def measured_peak(dtype: DTypeLike, size: int = 1024) -> float:
    """Operations a second of a matrix product on one device."""
    a = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    started = time.perf_counter()
    product(a, a).block_until_ready()
    return 2 * size**3 / (time.perf_counter() - started)


def estimate_seconds(cost: Cost, tokens: int, dtype: DTypeLike) -> float:
    """About how long all devices take for a step of so many tokens, by the data sheet or, without one, by trying."""
    peak = device_peak() or measured_peak(dtype)
    return cost.total * tokens / (peak * jax.device_count() * TYPICAL_USE)


@dataclass(frozen=True)
class StateBytes:
    """Bytes on the fullest device."""

    frozen: int
    trained: int
    moments: int
    gradient: int

    @property
    def total(self) -> int:
        return self.frozen + self.trained + self.moments + self.gradient


def state_bytes(
    leaves: Sequence[Leaf], shardings: dict[tuple[str, ...], NamedSharding], frozen_dtype: DTypeLike
) -> StateBytes:
    """Parameters, Adam's moments and the gradient of one device; activations come on top."""
    trained = frozen = 0
    for leaf in leaves:
        share = math.prod(shardings[leaf.path].shard_shape(leaf.shape))
        if leaf.trained:
            trained += 4 * share
        else:
            frozen += jnp.dtype(frozen_dtype).itemsize * share
    return StateBytes(frozen, trained, 2 * trained, trained)
