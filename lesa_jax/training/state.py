"""What a training step changes, and where it lies."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.checkpoint.names import Tree
from lesa_jax.training.optimizer import Optimizer, make_transformation


@flax.struct.dataclass
class TrainState:
    """What a step changes: steps done (int32), trained tree, optimiser state, and `sound` (bool), which turns false at
    the first loss, gradient or update that is not finite, and stays so. Also a tree of their shapes or shardings."""

    step: Any
    params: Tree
    optimizer: Any
    sound: Any


def state_shardings(
    params: Mapping[str, Any],
    shardings: Mapping[tuple[str, ...], NamedSharding],
    mesh: Mesh,
    optimizer: Optimizer,
) -> TrainState:
    """Where every leaf of the state lies: moments with their parameters, numbers everywhere."""
    everywhere = NamedSharding(mesh, P())
    placed = unflatten_dict({path: shardings[path] for path in flatten_dict(params)})
    transformation = make_transformation(optimizer)
    moments = optax.tree.map_params(
        transformation,
        lambda _, sharding: sharding,
        jax.eval_shape(transformation.init, params),
        placed,
        transform_non_params=lambda _: everywhere,
    )
    return TrainState(everywhere, placed, moments, everywhere)


def first_state(params: Tree, optimizer: Optimizer, placed: TrainState) -> TrainState:
    """The state before the first step; consumes `params`."""

    def start(params: Tree) -> TrainState:
        return TrainState(
            jnp.zeros((), jnp.int32), params, make_transformation(optimizer).init(params), jnp.array(True)
        )

    return jax.jit(start, out_shardings=placed, donate_argnums=0)(params)


def abstract_state(params: Tree, optimizer: Optimizer, placed: TrainState) -> TrainState:
    """Shapes and shardings of a state, for `Checkpoints.restore`; computes nothing.

    Args:
      params: the trained tree, or its shapes.
      optimizer: what its moments are of.
      placed: where every leaf of the state lies.
    """
    state = jax.eval_shape(lambda params: first_state(params, optimizer, placed), params)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, placed)
