"""From a checkpoint folder to what `forward` takes."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import load_tree, open_checkpoint
from lesa_jax.models.config import ModelConfig
from lesa_jax.models.shapes import check_shapes

# A constant of the architecture that old Llama checkpoints store beside the weights.
COMPUTED = "rotary_emb.inv_freq"


def load_model(folder: Path) -> tuple[dict[str, Any], ModelConfig]:
    """The parameters of a checkpoint in their stored dtype, on the default device, and its configuration.

    Raises InputError, before any weight is read, for an architecture without a forward pass here; and for tensors that
    do not match config.json.
    """
    checkpoint = open_checkpoint(folder)
    config = ModelConfig.from_hf(checkpoint.config)
    return checked_params(load_tree(checkpoint), config), config


def checked_params(tree: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """The tree as device arrays, if it holds exactly the tensors that `config` asks for."""
    flat: dict[str, Any] = flatten_dict(tree, sep=".")
    leaves = {name: leaf for name, leaf in flat.items() if not name.endswith(COMPUTED)}
    if config.tied and "lm_head.weight" in leaves:
        head = leaves.pop("lm_head.weight")
        if not np.array_equal(head, leaves.get("model.embed_tokens.weight", ())):
            raise InputError(
                "lm_head.weight differs from model.embed_tokens.weight although config.json ties them; "
                "set tie_word_embeddings to false to use it"
            )
    check_shapes({name: tuple(leaf.shape) for name, leaf in leaves.items()}, config)
    return jax.tree.map(jnp.asarray, unflatten_dict(leaves, sep="."))
