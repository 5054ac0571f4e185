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
from lesa_jax.checkpoint.reader import Checkpoint, read, release
from lesa_jax.families.roles import NORM
from lesa_jax.models.config import ModelConfig
from lesa_jax.models.load import COMPUTED
from lesa_jax.models.shapes import check_shapes, parameter_shapes
from lesa_jax.planning.plan import Plan
from lesa_jax.training.segments import Segment, find_segments

LAYERS = "model.layers."


@dataclass(frozen=True)
class Leaf:
    """One array of a model in training.

    Attributes:
      path: keys into the tree of `segments`.
      names: the checkpoint's tensors that it stacks, in order; a single one outside the layers.
      shape: of the array; a stack has a leading axis of `len(names)`.
      stacked: whether it has that axis.
      trained: whether it belongs to the trained tree.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    shape: tuple[int, ...]
    stacked: bool
    trained: bool


def choose(train: str, names: Sequence[str], plan: Plan | None) -> frozenset[str]:
    """The tensors that `--train` names: "new", "new+norms", "all", or a regular expression found in their names.

    Raises:
      InputError: "new" without growth.json, an expression that is none or that matches nothing.
    """
    if train == "all":
        return frozenset(names)
    if train in ("new", "new+norms"):
        if plan is None:
            raise InputError(
                f"--train {train}: the model has no growth.json, which says what is new; use --train all, or a model "
                "made by python -m lesa_jax.expand"
            )
        new = tuple(f"{LAYERS}{layer}." for layer in plan.new_layers)
        with_norms = train == "new+norms"
        return frozenset(name for name in names if name.startswith(new) or (with_norms and NORM.search(name)))
    try:
        pattern = re.compile(train)
    except re.error as error:
        raise InputError(f"--train {train}: not a regular expression ({error}); or use new, new+norms, all") from None
    chosen = frozenset(name for name in names if pattern.search(name))
    if not chosen:
        raise InputError(f"--train {train}: matches no tensor; names look like {names[-1]}")
    return chosen


def tensor_names(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors that the forward pass uses."""
    tensors = {}
    for path, shape in parameter_shapes(config).items():
        if path.startswith(LAYERS):
            kind = path.removeprefix(LAYERS)
            tensors |= {f"{LAYERS}{layer}.{kind}": shape[1:] for layer in range(config.num_layers)}
        else:
            tensors[path] = shape
    return tensors


def make_leaves(config: ModelConfig, trained: frozenset[str]) -> tuple[tuple[Segment, ...], tuple[Leaf, ...]]:
    """Segments and leaves of a model of which the tensors named in `trained` are trained."""
    shapes = parameter_shapes(config)
    kinds = {path.removeprefix(LAYERS): shape[1:] for path, shape in shapes.items() if path.startswith(LAYERS)}
    groups = [
        frozenset(kind for kind in kinds if f"{LAYERS}{layer}.{kind}" in trained) for layer in range(config.num_layers)
    ]
    segments = find_segments(groups)
    leaves = [
        Leaf(tuple(path.split(".")), (path,), shape, False, path in trained)
        for path, shape in shapes.items()
        if not path.startswith(LAYERS)
    ]
    for number, segment in enumerate(segments):
        for place in range(segment.width):
            for kind, shape in kinds.items():
                names = tuple(f"{LAYERS}{layer}.{kind}" for layer in segment.layers(place))
                path = ("segments", str(number), str(place), *kind.split("."))
                leaves.append(Leaf(path, names, (len(names), *shape), True, names[0] in trained))
    return segments, tuple(leaves)


def check_tensors(checkpoint: Checkpoint, config: ModelConfig) -> None:
    """Refuses a checkpoint that does not hold exactly what the forward pass of `config` needs; reads no weights."""
    shapes = {".".join(stack.path): stack.sizes + stack.kind.shape for stack in checkpoint.stacks}
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith(COMPUTED)}
    if config.tied:
        shapes.pop("lm_head.weight", None)
    check_shapes(shapes, config)


Fill = Callable[[str, tuple[int, ...]], np.ndarray]  # a tensor's name and shape -> its values


def from_checkpoint(checkpoint: Checkpoint) -> Fill:
    """Tensors as the checkpoint has them."""
    return lambda name, shape: read(checkpoint, name)


def random_weights(seed: int, deviation: float) -> Fill:
    """Fresh tensors as transformers initialises them: normal matrices, norms of one, biases of zero."""

    def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if NORM.search(name):
            return np.ones(shape, np.float32)
        if name.endswith(".bias"):
            return np.zeros(shape, np.float32)
        rng = np.random.default_rng((seed, crc32(name.encode())))
        return rng.standard_normal(shape, np.float32) * np.float32(deviation)

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
    loaded: Callable[[], None] = lambda: None,
) -> tuple[Tree, Tree]:
    """The trained tree, in float32, and the frozen one in `frozen_dtype`, each leaf where its sharding puts it.

    `loaded` is called after every leaf.
    """
    trees: dict[bool, dict[tuple[str, ...], jax.Array]] = {True: {}, False: {}}
    for leaf in leaves:
        dtype = jnp.float32 if leaf.trained else frozen_dtype

        def part(index: Any, leaf: Leaf = leaf, dtype: DTypeLike = dtype) -> np.ndarray:
            names, shape = leaf.names, leaf.shape
            if not leaf.stacked:
                return np.asarray(fill(names[0], shape)[index], dtype)
            return np.stack([np.asarray(fill(name, shape[1:])[index[1:]], dtype) for name in names[index[0]]])

        array = jax.make_array_from_callback(leaf.shape, shardings[leaf.path], part)
        trees[leaf.trained][leaf.path] = jax.block_until_ready(array)
        loaded()
    return unflatten_dict(trees[True]), unflatten_dict(trees[False])


def load_model_leaves(
    checkpoint: Checkpoint,
    leaves: Sequence[Leaf],
    shardings: Mapping[tuple[str, ...], NamedSharding],
    frozen_dtype: DTypeLike,
) -> tuple[Tree, Tree]:
    """`load_leaves` from a checkpoint, whose pages leave memory leaf by leaf."""
    return load_leaves(leaves, from_checkpoint(checkpoint), shardings, frozen_dtype, lambda: release(checkpoint))
