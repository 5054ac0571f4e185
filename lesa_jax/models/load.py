"""From a checkpoint folder to what `forward` takes."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import Checkpoint, load_tree, open_checkpoint, read
from lesa_jax.families.model import ModelConfig
from lesa_jax.families.roles import is_buffer
from lesa_jax.models.config import read_model
from lesa_jax.models.parts import embedding_tensor, head_tensor, layer_tensor
from lesa_jax.models.shapes import (
    check_experts,
    check_shapes,
    check_tensors,
    layer_tensors,
    model_stacks,
    model_tensors,
)
from lesa_jax.parallel.mesh import dividing, sharing_axes


def load_model(folder: Path, mesh: Mesh | None = None) -> tuple[dict[str, Any], ModelConfig]:
    """The parameters of a checkpoint in their stored dtype, on the default device or shared by a mesh, and its
    configuration.

    Raises:
      InputError: before any weight is read, an architecture without a forward pass here; and tensors that do not match
        config.json.
    """
    checkpoint = open_checkpoint(folder)
    config = read_model(checkpoint)
    if config.encoder is not None:
        check_tensors(checkpoint, config)
        return stacked_params(checkpoint, config), config
    check_experts(checkpoint, config)
    return checked_params(load_tree(checkpoint), config, mesh), config


def checked_params(tree: dict[str, Any], config: ModelConfig, mesh: Mesh | None = None) -> dict[str, Any]:
    """The tree as device arrays, if it holds exactly the tensors that `config` asks for."""
    flat: dict[str, Any] = flatten_dict(tree, sep=".")
    leaves = {name: leaf for name, leaf in flat.items() if not is_buffer(name)}
    embedding, head = embedding_tensor(config), head_tensor(config)
    if config.tied and head in leaves and not np.array_equal(leaves.pop(head), leaves.get(embedding, ())):
        raise InputError(
            f"{head} differs from {embedding} although config.json ties them; "
            "set tie_word_embeddings to false to use it"
        )
    check_shapes({name: tuple(leaf.shape) for name, leaf in leaves.items()}, config)
    if mesh is None:
        return jax.tree.map(jnp.asarray, unflatten_dict(leaves, sep="."))
    places = shardings(config, mesh)
    return unflatten_dict({name: jax.device_put(leaf, places[name]) for name, leaf in leaves.items()}, sep=".")


def shardings(config: ModelConfig, mesh: Mesh) -> dict[str, NamedSharding]:
    """Where each stack of tensors lies on a mesh, by its dotted path; axes that do not divide a dimension do not share
    it."""
    tensors, found = model_tensors(config), {}
    for stack in model_stacks(config):
        of_numbers = (None, "experts")[: len(stack.sizes)]
        axes = sharing_axes((*of_numbers, *tensors[stack.names()[0]].axes))
        spec = P(*dividing(axes, stack.sizes + stack.spec.shape, mesh.shape))
        found[".".join(stack.path)] = NamedSharding(mesh, spec)
    return found


def stacked_params(checkpoint: Checkpoint, config: ModelConfig) -> dict[str, Any]:
    """An encoder-decoder's tensors as device arrays, those of a stack's layers stacked.

    Numbers inside a layer (T5's `layer.1`) stay keys: a layer's parts are found by the names that they have in there.
    """
    stacked: dict[str, list[str]] = {
        f"{stack.names.layers}.{name}": [layer_tensor(stack, layer, name) for layer in range(stack.num_layers)]
        for stack in config.stacks
        for name in layer_tensors(stack, 0)
    }
    outside = model_tensors(config).keys() - {name for names in stacked.values() for name in names}
    flat = {name: jnp.asarray(read(checkpoint, name)) for name in outside}
    flat |= {name: jnp.asarray(np.stack([read(checkpoint, n) for n in names])) for name, names in stacked.items()}
    return unflatten_dict(flat, sep=".")
