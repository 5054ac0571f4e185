"""A model's layers as runs of like ones, where some have experts and others none; `parts` does without JAX."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.parts import layers_of, part


def layer_runs(config: ModelConfig) -> list[range]:
    """The layers as runs in which all have experts, or none has."""
    starts = [layer for layer in range(1, config.num_layers) if config.is_sparse(layer) != config.is_sparse(layer - 1)]
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

    Stacks that only some layers have are cut where others come between, as a checkpoint of such a model would be.
    """
    stacks = layer_stacks(params, config)
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(params))
    leaves = {path: leaf for path, leaf in flat.items() if not any(path[: len(at)] == at for at in stacks)}
    last = config.names.layers.split(".")[-1]
    for at, (layers, stack) in stacks.items():
        inside: dict[tuple[str, ...], Any] = dict(flatten_dict(stack))
        for start, stop in stretches([layer in layers for layer in order]):
            rows = np.array(order[start:stop]) - layers[0]
            key = last if stop - start == len(order) else f"{last}[{start}:{stop}]"
            leaves |= {(*at[:-1], key, *path): leaf[rows] for path, leaf in inside.items()}
    return unflatten_dict(leaves)


def stretches(wanted: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Where each unbroken run of wanted places starts, and where it has stopped."""
    edges = np.flatnonzero(np.diff([False, *wanted, False]))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
