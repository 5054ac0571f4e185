"""From a checkpoint folder to what `forward` takes."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import load_tree, open_checkpoint
from lesa_jax.families.model import ModelConfig
from lesa_jax.families.roles import is_buffer
from lesa_jax.models.config import read_model
from lesa_jax.models.parts import embedding_tensor, head_tensor
from lesa_jax.models.shapes import check_shapes


def load_model(folder: Path) -> tuple[dict[str, Any], ModelConfig]:
    """The parameters of a checkpoint in their stored dtype, on the default device, and its configuration.

    Raises:
      InputError: before any weight is read, an architecture without a forward pass here; and tensors that do not match
        config.json.
    """
    checkpoint = open_checkpoint(folder)
    config = read_model(checkpoint)
    return checked_params(load_tree(checkpoint), config), config


def checked_params(tree: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
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
    return jax.tree.map(jnp.asarray, unflatten_dict(leaves, sep="."))
