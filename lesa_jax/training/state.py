"""What a training step changes, and where it lies."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.checkpoint.names import Tree
from lesa_jax.training.optimizer import Rule, make_transformation


@flax.struct.dataclass
class TrainState:
    """What a step changes: steps done (int32), trained tree, optimiser state, `sound` (bool), which turns false at the
    first loss, gradient or update that is not finite, and stays so, and the trained tree's moving average, None without
    one. Also a tree of their shapes or shardings."""

    step: Any
    params: Tree
    optimizer: Any
    sound: Any
    average: Any = None

    @property
    def learned(self) -> Tree:
        """What the run is evaluated and exported by."""
        return self.params if self.average is None else self.average


def state_shardings(
    params: Mapping[str, Any],
    shardings: Mapping[tuple[str, ...], NamedSharding],
    mesh: Mesh,
    rule: Rule,
) -> TrainState:
    """Where every leaf of the state lies: moments with their parameters, numbers everywhere."""
    everywhere = NamedSharding(mesh, P())
    flat = {path: shardings[path] for path in flatten_dict(params)}

    def place(keys: tuple[Any, ...], _: Any) -> NamedSharding:
        # What a rule keeps for a parameter lies under the parameter's own keys, however deep in the rule's state.
        path = tuple(key.key for key in keys if isinstance(key, jax.tree_util.DictKey))
        return next((flat[path[start:]] for start in range(len(path)) if path[start:] in flat), everywhere)

    moments = jax.tree_util.tree_map_with_path(place, jax.eval_shape(make_transformation(rule).init, params))
    placed = unflatten_dict(flat)
    return TrainState(everywhere, placed, moments, everywhere, placed if rule.ema else None)


def first_state(params: Tree, rule: Rule, placed: TrainState) -> TrainState:
    """The state before the first step; consumes `params`."""

    def start(params: Tree) -> TrainState:
        average = jax.tree.map(jnp.copy, params) if rule.ema else None
        moments = make_transformation(rule).init(params)
        return TrainState(jnp.zeros((), jnp.int32), params, moments, jnp.array(True), average)

    return jax.jit(start, out_shardings=placed, donate_argnums=0)(params)


def abstract_state(params: Tree, rule: Rule, placed: TrainState) -> TrainState:
    """Shapes and shardings of a state, for `Checkpoints.restore`; computes nothing.

    Args:
      params: the trained tree, or its shapes.
      rule: what its moments are of.
      placed: where every leaf of the state lies.
    """
    state = jax.eval_shape(lambda params: first_state(params, rule, placed), params)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, placed)
