"""A model's layers as runs of like ones, where some have experts and others none, or sizes of their own; `parts` does
without JAX."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.parts import layers_of, part


def layer_runs(config: ModelConfig) -> list[range]:
    """The layers as runs in which all have the same sizes, and all have experts, or none has."""
    kinds = [(config.is_sparse(layer), config.sizes_of(layer)) for layer in range(config.num_layers)]
    starts = [layer for layer, (below, own) in enumerate(pairwise(kinds), start=1) if own != below]
    return [range(*bounds) for bounds in pairwise((0, *starts, config.num_layers))]


def run_of(params: Tree, run: range, config: ModelConfig) -> Tree:
    """The stacked layers of one run; what others have too is a slice of their stack."""
    if len(run) == config.num_layers:
        return layers_of(params, config)
    leaves: dict[tuple[str, ...], Any] = {}
    for layers, stack in layer_stacks(params, config).values():
        if run[0] in layers:
            first, stop = run[0] - layers[0], run[-1] + 1 - layers[0]
            found: dict[tuple[str, ...], Any] = dict(flatten_dict(stack))
            leaves |= {path: leaf[first:stop] for path, leaf in found.items()}
    return unflatten_dict(leaves)


def layer_stacks(params: Tree, config: ModelConfig) -> dict[tuple[str, ...], tuple[range, Tree]]:
    """All stacks of layers, by where they lie in the tree, and whose they are.

    Tensors that all layers have lie under the layers' own name, others under that and their bounds: `layers[1:6]`
    (`checkpoint.names.Stack.path`).
    """
    *above, last = config.names.layers.split(".")
    found: dict[tuple[str, ...], tuple[range, Tree]] = {}
    for key, stack in (part(params, ".".join(above)) if above else params).items():
        bounds = re.fullmatch(rf"{re.escape(last)}\[(\d+):(\d+)\]", key)
        if bounds or key == last:
            layers = range(*map(int, bounds.groups())) if bounds else range(config.num_layers)
            found[*above, key] = layers, stack
    return found


def reordered(params: Tree, config: ModelConfig, order: Sequence[int]) -> Tree:
    """The tree of the model that `config.of_layers(order)` describes: each layer as often as the order names it.

    Stacks that only some layers have, or that are of one shape in some layers only, are cut where others come between,
    and joined where they meet, as a checkpoint of such a model would be.
    """
    stacks = layer_stacks(params, config)
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(params))
    leaves = {path: leaf for path, leaf in flat.items() if not any(path[: len(at)] == at for at in stacks)}
    *above, last = config.names.layers.split(".")
    owners: dict[tuple[str, ...], dict[int, tuple[Any, int]]] = {}
    for layers, stack in stacks.values():
        inside: dict[tuple[str, ...], Any] = dict(flatten_dict(stack))
        for path, leaf in inside.items():
            owners.setdefault(path, {}).update({layer: (leaf, layer - layers[0]) for layer in layers})
    for path, rows in owners.items():
        shapes = [rows[layer][0].shape[1:] if layer in rows else None for layer in order]
        for start, stop in stretches(shapes):
            key = last if stop - start == len(order) else f"{last}[{start}:{stop}]"
            leaves[*above, key, *path] = rows_of([rows[layer] for layer in order[start:stop]])
    return unflatten_dict(leaves)


def rows_of(rows: Sequence[tuple[Any, int]]) -> Any:
    """These rows of these arrays as one array; of one array in one go."""
    arrays = {id(array): array for array, _ in rows}
    if len(arrays) == 1:
        [array] = arrays.values()
        return array[np.array([row for _, row in rows])]
    return jnp.stack([array[row] for array, row in rows])


def stretches(values: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """Where each unbroken run of one value starts, and where it has stopped; None is no value."""
    start = 0
    for value, run in groupby(values):
        stop = start + len([*run])
        if value is not None:
            yield start, stop
        start = stop
