"""A text's loss with a factor on what each layer adds to the residual stream: 0 is a layer that is passed by."""

from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.loudness import loudness_of
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.decoder import forward, head
from lesa_jax.models.losses import token_nll
from lesa_jax.models.runs import layer_stacks


def row_loss(
    factors: Float[Array, " layers"], params: Tree, row: Int[Array, " tokens"], config: ModelConfig
) -> Float[Array, ""]:
    """Mean loss of a row's tokens, nats, in float32."""
    hidden_1xTxE = forward(scale_outputs(params, factors, config), row[None], config, jnp.float32)
    return token_nll(hidden_1xTxE[:, :-1], head(params, config), row[None, 1:]).mean()


def scale_outputs(params: Tree, factors: Float[Array, " layers"], config: ModelConfig) -> Tree:
    """The model with each layer's contributions to the residual stream multiplied by its factor."""
    flat: dict[tuple[str, ...], Any] = flatten_dict(params)
    for place, (layers, stack) in layer_stacks(params, config).items():
        own, leaves = factors[layers.start : layers.stop], dict[tuple[str, ...], Any](flatten_dict(stack))
        for path, leaf in leaves.items():
            if (loudness := loudness_of(".".join(path), config)) is not None:
                flat[*place, *path] = loudness.scaled(leaf, jnp.expand_dims(own, range(1, leaf.ndim)))
    return unflatten_dict(flat)
