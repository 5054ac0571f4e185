"""Old and new layers as one stack, and back: a plan applied to parameter trees.

Growth on the disk goes tensor by tensor (`recipe`); this is the same for a model in memory, such as an ablation's.
"""

import functools

import jax
import jax.numpy as jnp

from lesa_jax.checkpoint.names import Tree
from lesa_jax.planning.plan import Plan


def splice(old: Tree, new: Tree, plan: Plan) -> Tree:
    """The layers of the grown model.

    Args:
      old: arrays [source_layers, ...], the original's stacked layers (`models.parts.layers_of`).
      new: the same tree with [new layers, ...], in the order of `plan.new_layers`.
      plan: where each goes.

    Returns:
      The same tree with [plan.layers, ...]. Where a plan repeats an original (SOLAR), the repetition is a new layer.

    Raises:
      ValueError: stacks whose lengths are not the plan's.
    """
    for name, tree, layers in (("old", old, plan.source_layers), ("new", new, len(plan.new_layers))):
        lengths = {leaf.shape[0] for leaf in jax.tree.leaves(tree)}
        if lengths != {layers}:
            raise ValueError(f"{name} layers: stacks of {sorted(lengths)}, but the plan has {layers}")
    return _gather(old, new, plan.gather())


@functools.partial(jax.jit, static_argnames="rows")
def _gather(old: Tree, new: Tree, rows: tuple[int, ...]) -> Tree:
    return jax.tree.map(lambda o, n: jnp.concatenate([o, n])[jnp.array(rows)], old, new)


def split(layers: Tree, plan: Plan) -> tuple[Tree, Tree]:
    """The inverse of `splice`: the originals and the new layers of a grown model's stacked layers."""
    return _take(layers, plan.old_layers), _take(layers, plan.new_layers)


@functools.partial(jax.jit, static_argnames="rows")
def _take(layers: Tree, rows: tuple[int, ...]) -> Tree:
    return jax.tree.map(lambda leaf: leaf[jnp.array(rows)], layers)
