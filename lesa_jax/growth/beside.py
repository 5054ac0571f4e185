"""Kinds of weight that an initialiser sees beside the one that it makes: those whose rows are its neurons."""

from collections.abc import Mapping

from lesa_jax.checkpoint.names import Stack
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.families.neurons import Side, shared_neurons
from lesa_jax.families.roles import is_transposed
from lesa_jax.families.table import describe
from lesa_jax.growth.weights import WeightKind


def weight_kind(checkpoint: Checkpoint, stack: Stack, inner: tuple[int, ...]) -> WeightKind:
    """The kind of the tensors in `stack` that have these numbers after the layer's, and what stands beside it."""
    beside: tuple[tuple[Side, WeightKind], ...] = tuple(
        (side, WeightKind(other, inner, is_transposed(checkpoint, other)))
        for side, other in stacks_beside(checkpoint, stack).items()
    )
    return WeightKind(stack, inner, is_transposed(checkpoint, stack), beside)


def stacks_beside(checkpoint: Checkpoint, stack: Stack) -> Mapping[Side, Stack]:
    """The matrices whose rows are neurons of this stack's tensors, layer by layer; none unless all are there."""
    found: dict[Side, Stack] = {}
    templates = shared_neurons(describe(checkpoint.config), stack.template)
    for side, template in templates.items():
        for other in checkpoint.stacks:
            alike = (other.template, other.starts, other.sizes) == (template, stack.starts, stack.sizes)
            if alike and len(other.spec.shape) == 2 and fits(checkpoint, side, stack, other):
                found[side] = other
    return found if found.keys() == templates.keys() else {}


def fits(checkpoint: Checkpoint, side: Side, stack: Stack, other: Stack) -> bool:
    """Whether a bias has an entry for each row of its weight."""
    rows = other.spec.shape[1 if is_transposed(checkpoint, other) else 0]
    return side == "columns" or stack.spec.shape == (rows,)
