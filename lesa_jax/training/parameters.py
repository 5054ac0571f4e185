"""What is trained and what is frozen, leaf by leaf, and how a checkpoint becomes those two trees.

A leaf is a stack of tensors that train alike (see `segments`), or one tensor outside the layers. Weights go from the
memory-mapped file straight to the devices that need them, slice by slice: no host holds more than a leaf's own shards.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.sharding import NamedSharding
from jax.typing import DTypeLike

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.names import Tree
from lesa_jax.checkpoint.reader import Checkpoint, read
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.parts import input_tensors, is_adapter, layer_tensor
from lesa_jax.models.shapes import Tensor, layer_names, layer_tensors, model_tensors, outside_layers
from lesa_jax.planning.plan import Plan
from lesa_jax.training.segments import ENCODER, SEGMENTS, Segment, find_segments


@dataclass(frozen=True)
class Leaf:
    """One array of a model in training.

    Attributes:
      path: keys into the tree of `segments`.
      names: the checkpoint's tensors that it stacks, layer by layer and there expert by expert; a single one outside
        the layers.
      tensor: each of them.
      layers: whose they are, counted in their stack; () outside the layers.
      trained: whether it belongs to the trained tree.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    tensor: Tensor
    layers: tuple[int, ...]
    trained: bool

    @property
    def stacked(self) -> bool:
        """Whether the array has a leading axis of layers; behind it may come one of experts."""
        return bool(self.layers)

    @property
    def in_encoder(self) -> bool:
        """Whether it is of the layers of an encoder-decoder's encoder."""
        return self.path[:2] == (SEGMENTS, ENCODER)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return (len(self.layers), *self.tensor.array_shape) if self.stacked else self.tensor.shape

    def rows(self, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """The checkpoint's tensors in the array, by name."""
        return zip(self.names, array.reshape(-1, *self.tensor.shape), strict=True)


def choose(train: str, config: ModelConfig, plan: Plan | None) -> frozenset[str]:
    """The tensors that `--train` names: "new", "new+norms", "all", a regular expression found in their names, or the
    adapters of a model that has some.

    Raises:
      InputError: "new" without growth.json, an expression that is none or that matches nothing.
    """
    tensors = model_tensors(config)
    if config.lora_rank:
        return frozenset(name for name in tensors if is_adapter(name))
    if train == "all":
        return frozenset(tensors)
    if train in ("new", "new+norms"):
        if plan is None:
            raise InputError(
                f"--train {train}: the model has no growth.json, which says what is new; use --train all, or a model "
                "made by python -m lesa_jax.expand"
            )
        new = {
            name
            for stack, of_stack in zip(config.stacks, plan.stacks, strict=True)
            for layer in of_stack.new_layers
            for names in names_inside(stack, layer).values()
            for name in names
        }
        norms = {name for name, tensor in tensors.items() if tensor.role == "norm"} if train == "new+norms" else set()
        return frozenset(tensors.keys() & (new | norms))
    try:
        pattern = re.compile(train)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"--train {train}: not a regular expression ({error}); or use new, new+norms, all") from None
    chosen = frozenset(name for name in tensors if pattern.search(name))
    if not chosen:
        raise InputError(f"--train {train}: matches no tensor; names look like {list(tensors)[-1]}")
    for layer in range(config.num_layers):
        for names in names_inside(config, layer).values():
            if not chosen.isdisjoint(names) and not chosen.issuperset(names):
                some = next(name for name in names if name not in chosen)
                raise InputError(f"--train {train}: experts of a layer train together, but {some} is left out")
    return chosen


def names_inside(config: ModelConfig, layer: int) -> dict[str, tuple[str, ...]]:
    """The checkpoint's names of a layer's tensors, by their name inside it: one, or one for each expert."""
    inside = layer_tensors(config, layer).items()
    return {name: layer_names(config, layer, name, tensor) for name, tensor in inside}


def make_leaves(config: ModelConfig, trained: frozenset[str]) -> tuple[tuple[Segment, ...], tuple[Leaf, ...]]:
    """Segments and leaves of a model of which the tensors named in `trained` are trained; see `encoder_segments`."""
    segments = stack_segments(config, trained)
    leaves = list(stack_leaves(config, trained, segments, (SEGMENTS,)))
    if config.encoder is not None:
        leaves += stack_leaves(config.encoder, trained, encoder_segments(config, trained), (SEGMENTS, ENCODER))
    in_layers = {name for leaf in leaves for name in leaf.names}
    outside = [
        Leaf(tuple(name.split(".")), (name,), tensor, (), name in trained)
        for name, tensor in model_tensors(config).items()
        if name not in in_layers
    ]
    return segments, (*outside, *leaves)


def encoder_segments(config: ModelConfig, trained: frozenset[str]) -> tuple[Segment, ...]:
    """The segments of an encoder-decoder's encoder; none of a decoder alone. `make_leaves` gives its decoder's."""
    return () if config.encoder is None else stack_segments(config.encoder, trained)


def stack_segments(config: ModelConfig, trained: frozenset[str]) -> tuple[Segment, ...]:
    """How the layers of one stack are cut up; those of a decoder have a backward pass where its encoder is trained."""
    names = [names_inside(config, layer) for layer in range(config.num_layers)]
    groups = [frozenset(name for name, own in layer.items() if own[0] in trained) for layer in names]
    # Layers of a segment are alike in what they have, too.
    kinds = [(config.is_sparse(layer), config.sizes_of(layer), group) for layer, group in enumerate(groups)]
    below = input_tensors(config)
    if config.encoder is not None:
        below |= encoder_tensors(config.encoder)
    return find_segments(kinds, frozen_prefix(groups, not trained.isdisjoint(below)))


def encoder_tensors(encoder: ModelConfig) -> frozenset[str]:
    """All that what a decoder reads depends on."""
    layers = [names_inside(encoder, layer).values() for layer in range(encoder.num_layers)]
    return frozenset({name for inside in layers for names in inside for name in names} | outside_layers(encoder).keys())


def stack_leaves(
    config: ModelConfig, trained: frozenset[str], segments: Sequence[Segment], where: tuple[str, ...]
) -> Iterator[Leaf]:
    """The leaves of one stack's layers, which lie under `where`."""
    for number, segment in enumerate(segments):
        for place in range(segment.width):
            layers = segment.layers(place)
            for name, tensor in layer_tensors(config, layers[0]).items():
                stacked = tuple(own for layer in layers for own in layer_names(config, layer, name, tensor))
                path = (*where, str(number), str(place), *(key for key in name.split(".") if key != "*"))
                yield Leaf(path, stacked, tensor, layers, stacked[0] in trained)


def frozen_prefix(groups: Sequence[frozenset[str]], train_inputs: bool) -> int:
    """How many layers lie below everything that is trained, and so have no backward pass.

    Args:
      groups: for every layer, the tensors that are trained in it.
      train_inputs: whether anything is that lies below all layers, as the embedding does.
    """
    if train_inputs:
        return 0
    return next((layer for layer, group in enumerate(groups) if group), len(groups))


# A tensor's name, what it is, and the slices of it that are wanted -> their values.
Fill = Callable[[str, Tensor, tuple[slice, ...]], np.ndarray]


def from_checkpoint(checkpoint: Checkpoint) -> Fill:
    """Tensors as the checkpoint has them; rows that are not wanted are not read."""

    def fill(name: str, tensor: Tensor, index: tuple[slice, ...]) -> np.ndarray:
        first, stop, _ = index[0].indices(tensor.shape[0])
        return read(checkpoint, name, first, stop - first)[(slice(None), *index[1:])]

    return fill


def random_weights(seed: int, deviation: float) -> Fill:
    """Fresh tensors as transformers initialises them: normal matrices, norms of one, biases of zero."""

    def fill(name: str, tensor: Tensor, index: tuple[slice, ...]) -> np.ndarray:
        if tensor.fresh is not None:
            return np.full(tensor.shape, tensor.fresh, np.float32)[index]
        rng = np.random.default_rng((seed, crc32(name.encode())))
        own = deviation if tensor.deviation is None else tensor.deviation
        return (rng.standard_normal(tensor.shape, np.float32) * np.float32(own))[index]

    return fill


def norm_scaled(fill: Fill, config: ModelConfig) -> Fill:
    """The same, with LayerNorm Scaling (arXiv 2502.05795): what a decoder's layer l reads is divided by the root of l,
    which is 1 for the first.

    The factor is in the weights of the norms before attention and before the feed-forward network. So the model is an
    ordinary one of its family, and growth, which moves layers up, leaves the old ones theirs.
    """
    norms = [name for name in (config.names.attention_norm, config.names.feed_forward_norm) if name is not None]
    roots = {
        f"{layer_tensor(config, layer, norm)}.weight": np.float32(layer + 1) ** 0.5
        for layer in range(config.num_layers)
        for norm in norms
    }
    shift = np.float32(config.norm.shifted)  # Gemma's norms multiply by one more than their weights

    def scaled(name: str, tensor: Tensor, index: tuple[slice, ...]) -> np.ndarray:
        values = fill(name, tensor, index)
        return (values + shift) / roots[name] - shift if name in roots else values

    return scaled


def abstract_leaves(
    leaves: Sequence[Leaf], shardings: Mapping[tuple[str, ...], NamedSharding], dtype: DTypeLike = jnp.float32
) -> Tree:
    """The tree of `leaves` as shapes with shardings, by default in the trained leaves' dtype."""
    return unflatten_dict(
        {leaf.path: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=shardings[leaf.path]) for leaf in leaves}
    )


def load_leaves(
    leaves: Sequence[Leaf],
    fill: Fill,
    shardings: Mapping[tuple[str, ...], NamedSharding],
    frozen_dtype: DTypeLike,
) -> tuple[Tree, Tree]:
    """The trained tree, in float32, and the frozen one in `frozen_dtype`, each leaf where its sharding puts it."""
    trees: dict[bool, dict[tuple[str, ...], jax.Array]] = {True: {}, False: {}}
    for leaf in leaves:
        dtype = jnp.float32 if leaf.trained else frozen_dtype

        def part(index: Any, leaf: Leaf = leaf, dtype: DTypeLike = dtype) -> np.ndarray:
            if not leaf.stacked:
                return np.asarray(fill(leaf.names[0], leaf.tensor, index), dtype)
            numbered = len(leaf.shape) - len(leaf.tensor.shape)  # axes that tensors are counted by
            wanted = np.reshape(leaf.names, leaf.shape[:numbered])[index[:numbered]]
            parts = [np.asarray(fill(str(name), leaf.tensor, index[numbered:]), dtype) for name in wanted.flat]
            return np.stack(parts).reshape(*wanted.shape, *parts[0].shape)

        array = jax.make_array_from_callback(leaf.shape, shardings[leaf.path], part)
        trees[leaf.trained][leaf.path] = jax.block_until_ready(array)
    return unflatten_dict(trees[True]), unflatten_dict(trees[False])


def load_model_leaves(
    checkpoint: Checkpoint,
    leaves: Sequence[Leaf],
    shardings: Mapping[tuple[str, ...], NamedSharding],
    frozen_dtype: DTypeLike,
) -> tuple[Tree, Tree]:
    """`load_leaves` from a checkpoint."""
    return load_leaves(leaves, from_checkpoint(checkpoint), shardings, frozen_dtype)
