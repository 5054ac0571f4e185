"""The kinds of weight that tensors consist of, and those that an initialiser sees beside them: their rows are the
neurons of what it makes."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from lesa_jax.checkpoint.names import Stack
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.families.fused import Rows
from lesa_jax.families.kinds import WeightKind, parts_of, row_count
from lesa_jax.families.model import ModelConfig
from lesa_jax.families.neurons import Side, shared_neurons
from lesa_jax.families.roles import is_transposed
from lesa_jax.families.table import description
from lesa_jax.growth.orders import Orders, stack_orders


def in_runs(checkpoint: Checkpoint, model: ModelConfig) -> Checkpoint:
    """The checkpoint with its stacks cut wherever any size of the layers changes.

    So what stands beside a tensor is stacked with the same layers as the tensor itself, and is found.
    """
    layers = range(1, model.num_layers)
    changes = {layer for layer in layers if model.sizes_of(layer) != model.sizes_of(layer - 1)}

    def cut(stack: Stack) -> list[Stack]:
        if stack.prefix != f"{model.names.layers}.":
            return [stack]
        first, stop = stack.starts[0], stack.starts[0] + stack.sizes[0]
        bounds = pairwise(sorted({first, stop} | {layer for layer in changes if first < layer < stop}))
        runs = [((a, *stack.starts[1:]), (b - a, *stack.sizes[1:])) for a, b in bounds]
        whole = stack.whole and len(runs) == 1
        return [replace(stack, starts=starts, sizes=sizes, whole=whole) for starts, sizes in runs]

    return replace(checkpoint, stacks=tuple(run for stack in checkpoint.stacks for run in cut(stack)))


def weight_kinds(
    checkpoint: Checkpoint, stack: Stack, inner: tuple[int, ...], orders: Orders | None = None
) -> list[WeightKind]:
    """The kind of the tensors in `stack` that have these numbers after the layer's; of fused ones a kind for each part.

    Each with what stands beside it: beside a part of a bias that part of its weight. With `orders` the number is an
    expert's role.
    """
    order = stack_orders(stack, orders, description(checkpoint.config))

    def kind(part: Rows | None) -> WeightKind:
        beside: tuple[tuple[Side, WeightKind], ...] = tuple(
            (side, WeightKind(other, inner, is_transposed(checkpoint, other), part if side == "rows" else None))
            for side, other in stacks_beside(checkpoint, stack).items()
        )
        return WeightKind(stack, inner, is_transposed(checkpoint, stack), part, order, beside)

    return [kind(part) for part in parts_of(checkpoint, stack) or (None,)]


def stacks_beside(checkpoint: Checkpoint, stack: Stack) -> Mapping[Side, Stack]:
    """The matrices whose rows are neurons of this stack's tensors, layer by layer; none unless all are there."""
    found: dict[Side, Stack] = {}
    templates = shared_neurons(description(checkpoint.config), stack.template)
    for side, template in templates.items():
        for other in checkpoint.stacks:
            alike = (other.template, other.starts, other.sizes) == (template, stack.starts, stack.sizes)
            if alike and len(other.spec.shape) == 2 and fits(checkpoint, side, stack, other):
                found[side] = other
    return found if found.keys() == templates.keys() else {}


def fits(checkpoint: Checkpoint, side: Side, stack: Stack, other: Stack) -> bool:
    """Whether a bias has an entry for each row of its weight."""
    return side == "columns" or stack.spec.shape == (row_count(checkpoint, other),)
