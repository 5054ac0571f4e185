"""What is trained and what is frozen, leaf by leaf, and how a checkpoint becomes those two trees.

A leaf is a stack of tensors that train alike (see `segments`), or one tensor outside the layers. Weights go from the
memory-mapped file straight to the devices that need them, slice by slice: no host holds more than a leaf's own shards.
"""

import re
from collections.abc import Callable, Mapping, Sequence
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
from lesa_jax.models.parts import input_tensors, layer_tensor
from lesa_jax.models.shapes import Tensor, layer_tensors, model_tensors
from lesa_jax.planning.plan import Plan
from lesa_jax.training.segments import SEGMENTS, Segment, find_segments


@dataclass(frozen=True)
class Leaf:
    """One array of a model in training.

    Attributes:
      path: keys into the tree of `segments`.
      names: the checkpoint's tensors that it stacks, in order; a single one outside the layers.
      tensor: each of them.
      layers: whose they are; () outside the layers.
      trained: whether it belongs to the trained tree.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    tensor: Tensor
    layers: tuple[int, ...]
    trained: bool

    @property
    def stacked(self) -> bool:
        """Whether the array has a leading axis of `len(names)`."""
        return bool(self.layers)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return (len(self.layers), *self.tensor.shape) if self.stacked else self.tensor.shape


def choose(train: str, config: ModelConfig, plan: Plan | None) -> frozenset[str]:
    """The tensors that `--train` names: "new", "new+norms", "all", or a regular expression found in their names.

    Raises:
      InputError: "new" without growth.json, an expression that is none or that matches nothing.
    """
    tensors = model_tensors(config)
    if train == "all":
        return frozenset(tensors)
    if train in ("new", "new+norms"):
        if plan is None:
            raise InputError(
                f"--train {train}: the model has no growth.json, which says what is new; use --train all, or a model "
                "made by python -m lesa_jax.expand"
            )
        new = {layer_tensor(config, layer, name) for layer in plan.new_layers for name in layer_tensors(config)}
        norms = {name for name, tensor in tensors.items() if tensor.role == "norm"} if train == "new+norms" else set()
        return frozenset(tensors.keys() & (new | norms))
    try:
        pattern = re.compile(train)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"--train {train}: not a regular expression ({error}); or use new, new+norms, all") from None
    chosen = frozenset(name for name in tensors if pattern.search(name))
    if not chosen:
        raise InputError(f"--train {train}: matches no tensor; names look like {list(tensors)[-1]}")
    return chosen


def make_leaves(config: ModelConfig, trained: frozenset[str]) -> tuple[tuple[Segment, ...], tuple[Leaf, ...]]:
    """Segments and leaves of a model of which the tensors named in `trained` are trained."""
    inside = layer_tensors(config)
    names = [{name: layer_tensor(config, layer, name) for name in inside} for layer in range(config.num_layers)]
    groups = [frozenset(name for name in inside if layer[name] in trained) for layer in names]
    segments = find_segments(groups, frozen_prefix(groups, not trained.isdisjoint(input_tensors(config))))
    in_layers = {name for layer in names for name in layer.values()}
    leaves = [
        Leaf(tuple(name.split(".")), (name,), tensor, (), name in trained)
        for name, tensor in model_tensors(config).items()
        if name not in in_layers
    ]
    for number, segment in enumerate(segments):
        for place in range(segment.width):
            layers = segment.layers(place)
            for name, tensor in inside.items():
                stacked = tuple(names[layer][name] for layer in layers)
                path = (SEGMENTS, str(number), str(place), *name.split("."))
                leaves.append(Leaf(path, stacked, tensor, layers, stacked[0] in trained))
    return segments, tuple(leaves)


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
        return (rng.standard_normal(tensor.shape, np.float32) * np.float32(deviation))[index]

    return fill


def abstract_leaves(leaves: Sequence[Leaf], shardings: Mapping[tuple[str, ...], NamedSharding]) -> Tree:
    """The tree of `leaves` as shapes with shardings, in the trained leaves' dtype, float32."""
    return unflatten_dict(
        {leaf.path: jax.ShapeDtypeStruct(leaf.shape, jnp.float32, sharding=shardings[leaf.path]) for leaf in leaves}
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
            rows, inside = leaf.names[index[0]], index[1:]
            return np.stack([np.asarray(fill(name, leaf.tensor, inside), dtype) for name in rows])

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
