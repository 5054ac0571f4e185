"""Whether it is known that old layers still compute the same when their numbers are others."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.names import Stack
from lesa_jax.families.depth import INDEPENDENT, SPEAKING, UNDERSTOOD
from lesa_jax.families.entries import is_integer
from lesa_jax.families.fields import (
    BY_POSITION,
    DECODER_COUNTS,
    ENCODER_COUNTS,
    FIRST_LAYERS,
    LAYER_COUNTS,
    LAYER_NUMBERS,
    LAYER_RANGES,
    PREDICTION_LAYERS,
    text_section,
)
from lesa_jax.families.roles import is_buffer, is_shared
from lesa_jax.families.table import FAMILIES, find_family
from lesa_jax.planning.plan import Plan

HANDLED = {*LAYER_COUNTS, *ENCODER_COUNTS, *DECODER_COUNTS, *LAYER_NUMBERS, *FIRST_LAYERS, *PREDICTION_LAYERS}
HANDLED |= {*BY_POSITION, *UNDERSTOOD}
HANDLED |= {key for ends in LAYER_RANGES for key in ends}


def find_doubts(grown: Mapping[str, Any], plan: Plan, stacks: Iterable[Stack], *prefixes: str) -> tuple[str, ...]:
    """What speaks against taking it for granted that old layers compute what they did, one reason a string.

    Args:
      grown: config.json after growth, where every entry that speaks of single layers does so by a list.
      plan: of the growth.
      stacks, prefixes: the original's tensors, and what the names of its layers begin with, stack by stack.

    Raises:
      InputError: a known family whose layers have unlike tensors, so that the checkpoint is damaged.
    """
    section, model_type = text_section(grown), str(grown.get("model_type"))
    doubts = []
    known = model_type in INDEPENDENT or section.get("model_type") in INDEPENDENT or find_family(grown).encoder
    if not known:
        doubts.append(f"model_type {model_type} is not among those that are known")
    if grown.get("auto_map"):
        doubts.append("the model brings code of its own (auto_map)")
    doubts += [f"config.json's entry {key} may speak of layers" for key in strange_entries(section, plan)]
    stacks = list(stacks)
    for of_stack, prefix in zip(plan.stacks, prefixes, strict=True):
        if unlike := unlike_layers(section, of_stack, stacks, prefix):
            if model_type in FAMILIES:
                raise InputError(f"{unlike}, though config.json makes no difference between them; download it again")
            doubts.append(unlike)
    return tuple(doubts)


def strange_entries(section: Mapping[str, Any], plan: Plan) -> Iterator[str]:
    """Entries that say something, whose name may speak of layers, and that nothing here knows."""
    for key, value in section.items():
        per_layer = isinstance(value, list) and len(value) == plan.layers
        says = (is_integer(value) and value != 0) or (isinstance(value, (str, float, list, dict)) and bool(value))
        if says and not per_layer and key not in HANDLED and not SPEAKING.isdisjoint(key.split("_")):
            yield key


def unlike_layers(section: Mapping[str, Any], plan: Plan, stacks: list[Stack], prefix: str) -> str:
    """Two layers that are alike by config.json and have other tensors, in words; empty when there are none."""
    seen: dict[str, tuple[int, dict[str, tuple[int, ...]]]] = {}
    tensors = layer_shapes(stacks, prefix)
    for layer, position in enumerate(plan.old_layers):
        first, expected = seen.setdefault(kind_of(section, position, plan.layers), (layer, tensors[layer]))
        for name in sorted(expected.keys() | tensors[layer].keys()):
            here, there = tensors[layer].get(name), expected.get(name)
            if here != there:
                return f"tensor {prefix}{layer}.{name} {is_of(here)}, but {is_of(there)} in layer {first}"
    return ""


def is_of(shape: tuple[int, ...] | None) -> str:
    return "is missing" if shape is None else f"is {list(shape)}"


def kind_of(section: Mapping[str, Any], position: int, layers: int) -> str:
    """All that config.json says of one layer of the grown model."""
    said: list[Any] = [
        value[position] for value in section.values() if isinstance(value, list) and len(value) == layers
    ]
    said += [position in section[key] for key in LAYER_NUMBERS if isinstance(section.get(key), list)]
    said += [position < section[key] for key in FIRST_LAYERS if is_integer(section.get(key))]
    said += [
        section[first] <= position <= section[last]
        for first, last in LAYER_RANGES
        if is_integer(section.get(first)) and is_integer(section.get(last))
    ]
    table = section.get("per_layer_config")
    return repr((said, table.get(str(position)) if isinstance(table, Mapping) else None))


def layer_shapes(stacks: list[Stack], prefix: str) -> dict[int, dict[str, tuple[int, ...]]]:
    """The shape of every tensor of every layer, by its name in there."""
    shapes: dict[int, dict[str, tuple[int, ...]]] = {}
    for stack in stacks:
        if stack.prefix == prefix and not is_buffer(stack.template) and not is_shared(stack):
            for numbers in stack.numbers():
                name = stack.name(*numbers).removeprefix(f"{prefix}{numbers[0]}.")
                shapes.setdefault(numbers[0], {})[name] = stack.spec.shape
    return shapes
