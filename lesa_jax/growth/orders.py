"""Which expert has which role: a number for experts that is theirs from layer to layer."""

from collections.abc import Mapping
from typing import TypeAlias

from lesa_jax.checkpoint.names import Stack
from lesa_jax.families.model import ModelConfig

# For each layer that has experts: the number of the expert in each role.
Orders: TypeAlias = Mapping[int, tuple[int, ...]]


def as_numbered(model: ModelConfig) -> Orders:
    """The roles that experts have by their numbers; none without experts."""
    number = model.experts.number if model.experts is not None else 0
    return {layer: tuple(range(number)) for layer in range(model.num_layers) if model.is_sparse(layer)}


def stack_orders(stack: Stack, orders: Orders | None, model: ModelConfig | None) -> tuple[tuple[int, ...], ...] | None:
    """The roles in each layer of a stack whose tensors go by experts, by number or by row; None of any other."""
    if orders is None or model is None or model.experts is None:
        return None
    names = model.experts.names
    by_expert = (names.router, names.gate, names.up, names.gate_up, names.down)
    if stack.template.partition(".*.")[2] not in {f"{name}.weight" for name in by_expert if name is not None}:
        return None
    return tuple(orders[layer] for layer in range(stack.starts[0], stack.starts[0] + stack.sizes[0]))
