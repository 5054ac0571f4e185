"""What a training step costs: floating-point operations and bytes, with frozen layers counted as what they are.

XLA's own count takes a scan's body once, however often it runs, so the count here is by formula. A matrix product with
a weight of P numbers is 2 P operations a token forward, 2 P for its input's gradient and 2 P for its weight's. Frozen
weights have no third term; what lies below the first trained tensor has neither gradient.
"""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.typing import DTypeLike

from lesa_jax.families.model import ModelConfig
from lesa_jax.models.parts import input_tensors, output_tensor
from lesa_jax.models.shapes import Tensor, outside_layers
from lesa_jax.parallel.mesh import AXIS_RULES
from lesa_jax.parallel.rates import product_rate
from lesa_jax.training.optimizer import NEWTON_SCHULZ, Rule, by_muon
from lesa_jax.training.parameters import Leaf
from lesa_jax.training.peaks import peak_of

TYPICAL_USE = 0.4  # of the peak, by a training step: for a first estimate
TRIED = 1024  # the size of the product that tells an unknown device's peak


@dataclass(frozen=True)
class Cost:
    """Operations of one token: forward, gradients, and its share of an update. Additions and multiplications count one
    each.

    `backward_depth` is the number of layers that have a backward pass: all above the first trained tensor. `attention`
    are those of `forward` and `backward` that scores and sums of values take: a kernel's work where one runs.
    """

    forward: float
    backward: float
    backward_depth: int
    update: float = 0.0
    attention: float = 0.0

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.update


def token_cost(
    config: ModelConfig, leaves: Sequence[Leaf], sequence_length: int, target_length: int | None = None
) -> Cost:
    """Operations of one token in training, as a mean over a sequence that is one document.

    Of an encoder-decoder it is one token of a source of `sequence_length`, and its share of a target of
    `target_length`. Recomputation (`--remat`) is not counted: it is no use of the model, so that MFU compares.
    """
    outside = {leaf.names[0] for leaf in leaves if leaf.trained and not leaf.stacked}
    if config.encoder is not None:
        return pair_cost(config, config.encoder, leaves, outside, sequence_length, target_length or sequence_length)
    first = first_trained(config, leaves, outside)
    seen = [mean_reach(sequence_length, window) for window in config.windows]
    layers, head = layer_cost(config, leaves, first, seen), head_cost(config, outside, first)
    return replace(layers, forward=layers.forward + head.forward, backward=layers.backward + head.backward)


def pair_cost(
    config: ModelConfig,
    encoder: ModelConfig,
    leaves: Sequence[Leaf],
    outside: Set[str],
    source_length: int,
    target_length: int,
) -> Cost:
    """`token_cost` of an encoder-decoder; `outside` are the trained tensors outside its layers."""
    below, above = ([leaf for leaf in leaves if leaf.in_encoder == side] for side in (True, False))
    first = first_trained(encoder, below, outside)
    reading = layer_cost(encoder, below, first, [float(source_length)] * encoder.num_layers)
    encoder_learns = first < encoder.num_layers or not outside.isdisjoint(outside_layers(encoder))
    first = 0 if encoder_learns else first_trained(config, above, outside)
    # Keys and values of attention to the source are made of its tokens, not of the target's.
    cross = {f"{name}.weight" for name in (config.names.cross_key, config.names.cross_value)}
    to_source = [leaf for leaf in above if inside(leaf, config) in cross]
    made = layer_cost(config, to_source, first, None, input_gradient=encoder_learns)
    rest = [leaf for leaf in above if inside(leaf, config) not in cross]
    writing = layer_cost(config, rest, first, [mean_reach(target_length, None) + source_length] * config.num_layers)
    head = head_cost(config, outside, first)
    backward = writing.backward + head.backward
    if not encoder_learns:  # nor does anything ask for the gradient of keys and values that frozen projections make
        frozen = sum(layer >= first for leaf in to_source if not leaf.trained for layer in leaf.layers)
        backward -= 2 * frozen * source_length * config.num_heads * config.head_dim
    share = target_length / source_length
    return Cost(
        reading.forward + made.forward + share * (writing.forward + head.forward),
        reading.backward + made.backward + share * backward,
        reading.backward_depth + config.num_layers - first,
        attention=reading.attention + share * writing.attention,
    )


def head_cost(config: ModelConfig, outside: Set[str], first: int) -> Cost:
    """Operations of the head, for a token, where layers from `first` on have a backward pass."""
    head = 2.0 * config.vocab_size * config.hidden_size
    # Outside the layers only the final norm lies between them and the head.
    below = first < config.num_layers or any(name.startswith(f"{config.names.final_norm}.") for name in outside)
    return Cost(head, head * below + head * (output_tensor(config) in outside), 0)


def first_trained(config: ModelConfig, leaves: Sequence[Leaf], outside: Set[str]) -> int:
    """The first layer that has a backward pass; norms count, and a tied embedding lies above all layers, too."""
    touched = [layer for leaf in leaves if leaf.trained for layer in leaf.layers]
    return min(touched, default=config.num_layers) if outside.isdisjoint(input_tensors(config)) else 0


def mean_reach(tokens: int, window: int | None) -> float:
    """How many tokens one sees on average, over a sequence that fills up."""
    reach = min(tokens, window or tokens)
    return reach - reach * (reach - 1) / (2 * tokens)


def inside(leaf: Leaf, config: ModelConfig) -> str:
    """What the leaf's tensors are called inside their layers."""
    return leaf.names[0].removeprefix(f"{config.names.layers}.{leaf.layers[0]}.") if leaf.stacked else ""


def layer_cost(
    config: ModelConfig,
    leaves: Sequence[Leaf],
    first: int,
    seen: Sequence[float] | None,
    input_gradient: bool = True,
) -> Cost:
    """Operations of a token in the layers of one stack, by its leaves.

    Args:
      config: of the stack.
      leaves: whose products are counted.
      first: the first layer with a backward pass.
      seen: how many tokens one attends to in each layer; None: attention is not counted.
      input_gradient: whether the products' inputs have a gradient.
    """
    forward = backward = 0.0
    for leaf in leaves:
        size = used(leaf.tensor, config) if leaf.tensor.role == "matrix" else 0
        for layer in leaf.layers:
            forward += 2 * size
            if layer >= first:
                backward += 2 * size * input_gradient + 2 * size * leaf.trained
    widths = 2 * config.head_dim if config.latent is None else config.head_dim + config.latent.value
    scores, gradients = 0.0, 0.0
    for layer, reach in enumerate(seen or ()):
        heads = config.sizes_of(layer).num_heads
        scores += 2 * reach * heads * widths
        gradients += 4 * reach * heads * widths * (layer >= first)
    return Cost(forward + scores, backward + gradients, config.num_layers - first, attention=scores + gradients)


def step_bytes(
    config: ModelConfig,
    leaves: Sequence[Leaf],
    shardings: Mapping[tuple[str, ...], NamedSharding],
    frozen_dtype: DTypeLike,
) -> float:
    """Bytes that a training step moves between a device and its memory at least, activations left out.

    A frozen weight is read forward, and once more where it has a backward pass: above the first trained one; of an
    embedding that is no head a few rows are. A trained one is read forward and backward, its gradient written; AdamW
    reads it, gradient and two moments, and writes three. For the products a device reads the others' shares, too, but
    for what `tensor` shares.
    """
    looked_up = set() if config.tied else input_tensors(config)
    first = min((layer for leaf in leaves if leaf.trained for layer in leaf.layers), default=0)
    itemsize, moved = jnp.dtype(frozen_dtype).itemsize, 0.0
    for leaf in leaves:
        sizes = shardings[leaf.path].mesh.shape
        size = math.prod(leaf.tensor.shape) / sizes[AXIS_RULES["heads"]]
        if leaf.trained:
            own = math.prod(shardings[leaf.path].shard_shape(leaf.shape))
            moved += 4 * (1 + 1 + 1 + 4 + 3) * own + 2 * itemsize * (size * len(leaf.names) - own)
        elif looked_up.isdisjoint(leaf.names):
            above = sum(layer >= first for layer in leaf.layers)
            moved += itemsize * size * (len(leaf.names) + above)
    return moved


def update_operations(leaves: Sequence[Leaf], rule: Rule) -> float:
    """Operations of one update: the products by which Muon orthogonalises each matrix; AdamW has none.

    With a <= b the two sides of a matrix X, an iteration has X X' and its square, and the product of both with X.
    """
    total = 0.0
    for leaf in leaves:
        if leaf.trained and by_muon(leaf.path, len(leaf.shape), rule.name):
            *stacked, rows, columns = leaf.shape
            a, b = sorted((rows, columns))
            total += math.prod(stacked) * NEWTON_SCHULZ * (4 * a * a * b + 2 * a**3)
    return total


def used(tensor: Tensor, config: ModelConfig) -> float:
    """The numbers of a layer's matrices that a token is multiplied with: of experts, those of the chosen ones."""
    size = float(math.prod(tensor.array_shape))
    if config.experts is None or "experts" not in tensor.array_axes:
        return size
    return size * config.experts.per_token / config.experts.number


def device_peak() -> float | None:
    """Operations a second of one device by its data sheet; None where that is not known, as of a CPU."""
    return peak_of(jax.devices()[0].device_kind)


def estimate_seconds(cost: Cost, tokens: int, dtype: DTypeLike) -> float:
    """About how long all devices take for a step of so many tokens, by the data sheet or, without one, by trying."""
    peak = device_peak() or product_rate(TRIED, dtype, tries=1)
    return cost.total * tokens / (peak * jax.device_count() * TYPICAL_USE)


@dataclass(frozen=True)
class StateBytes:
    """Bytes on the fullest device."""

    frozen: int
    trained: int
    moments: int
    gradient: int
    average: int = 0

    @property
    def total(self) -> int:
        return self.frozen + self.trained + self.moments + self.gradient + self.average


def state_bytes(
    leaves: Sequence[Leaf],
    shardings: dict[tuple[str, ...], NamedSharding],
    frozen_dtype: DTypeLike,
    averaged: bool = False,
    moments_dtype: DTypeLike = jnp.float32,
) -> StateBytes:
    """Parameters, Adam's two moments, the gradient, and a moving average if `averaged`, of one device; activations come
    on top.

    Of a layer's matrices the gradient has the dtype of the products, which is that of what is frozen.
    """
    trained = frozen = gradient = 0
    narrow = jnp.dtype(frozen_dtype).itemsize
    for leaf in leaves:
        share = math.prod(shardings[leaf.path].shard_shape(leaf.shape))
        if leaf.trained:
            trained += share
            gradient += (narrow if leaf.stacked and leaf.tensor.role == "matrix" else 4) * share
        else:
            frozen += narrow * share
    moments = 2 * jnp.dtype(moments_dtype).itemsize * trained
    return StateBytes(frozen, 4 * trained, moments, gradient, 4 * trained if averaged else 0)
