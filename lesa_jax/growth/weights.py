"""Kinds of weight: what is read, worked out and written together."""

import math

from lesa_jax.checkpoint.names import Stack
from lesa_jax.growth.recipe import Part

# One kind of weight: the matrices of all layers in a stack, for a stack with more axes those of one expert.
WeightKind = tuple[Stack, tuple[int, ...]]
# Kinds of equal shape are predicted together while their weights stay below this many bytes of float32.
BATCH_BYTES = 1 << 28


def weight_kinds(computed: list[Part]) -> list[list[WeightKind]]:
    """The kinds that computed parts belong to, in batches that share shape and layers, and so a compiled program."""
    groups: dict[tuple[object, ...], list[WeightKind]] = {}
    for stack, inner in dict.fromkeys((part.stack, part.numbers[1:]) for part in computed):
        groups.setdefault((stack.kind, stack.starts[0], stack.sizes[0]), []).append((stack, inner))
    batches = []
    for group in groups.values():
        size = max(1, BATCH_BYTES // kind_bytes(group[0][0]))
        batches += [group[i : i + size] for i in range(0, len(group), size)]
    return batches


def kind_name(stack: Stack) -> str:
    """How a kind is called in reports: `model.layers.*.mlp.up_proj.weight` -> `mlp.up_proj`."""
    return stack.template.removeprefix(stack.prefix + "*.").removesuffix(".weight")


def kind_pages(stack: Stack) -> int:
    """Matrices in one tensor: 1, or the number of packed experts."""
    return stack.kind.shape[0] if len(stack.kind.shape) == 3 else 1


def kind_bytes(stack: Stack) -> int:
    """Bytes of one kind's matrices of all layers as float32."""
    return 4 * stack.sizes[0] * math.prod(stack.kind.shape)


def computation_memory(computed: list[Part]) -> int:
    """Bytes that computing new matrices needs at its peak besides the program: the largest batch of kinds.

    Weights and V as float32 for every kind of the batch; Gram matrix, eigenvectors and their workspace for one.
    """
    peak = 0
    for batch in weight_kinds(computed):
        stack = batch[0][0]
        out = stack.kind.shape[-2]
        peak = max(peak, len(batch) * (2 * kind_bytes(stack)) + 5 * 4 * out * out)
    return peak
