"""A plan from a file of the user's, in the place of a depth and a rule."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_object
from lesa_jax.families.entries import MOST_LAYERS, is_integer
from lesa_jax.planning.methods import Method
from lesa_jax.planning.placement import check_depth, check_free_layout, check_gaps, insert
from lesa_jax.planning.plan import Plan, Slot

FORMS = (
    'expected {"source_layers": .., "slots": [..]} as in growth.json, a whole growth.json, {"gaps": [3, 5, 5]}, or '
    '{"slices": [{"layers": [0, 24]}, {"layers": [8, 32]}]}'
)


def read_plan(file: Path, depths: Sequence[int], method: Method) -> Plan:
    """The plan in a file, for one model and for what a method puts into new layers.

    Args:
      file: JSON or YAML: what `Plan.to_json` gives, a growth.json, `{"gaps": [3, 5, 5]}`, or slices; of an
        encoder-decoder its decoder's, and as `encoder` the same of its encoder.
      depths: of the model's stacks of layers.
      method: that is to fill the new layers.

    Raises:
      InputError: it is no plan, another model's, one without a new layer, or none that the method can fill.
    """
    check_free_layout(method, "--plan")
    value, given = read_object("--plan", file), f"--plan {file}"
    try:
        plan = parse(value.get("plan", value), depths, given)
    except InputError:  # which is a ValueError, too, and says all itself
        raise
    except ValueError as error:
        raise InputError(f"{given}: {error}; {FORMS}") from None
    if plan.is_original:
        raise InputError(f"{given}: has no new layer, so there is nothing to grow")
    for (name, stack), depth in zip(plan.named, depths, strict=True):
        if stack.source_layers != depth:
            raise InputError(
                f"{given}: is of {stack.source_layers} {name}layers, the model has {depth}; take a plan of this model"
            )
        if stack.new_layers:
            check_depth(depth, method)
            check_places(stack, method, given)
    return plan


def parse(value: Any, depths: Sequence[int], given: str) -> Plan:
    """The plan of all stacks.

    Raises:
      ValueError: it is damaged, or of another number of stacks.
      InputError: it names a gap that there is not.
    """
    if not isinstance(value, dict):
        raise ValueError("its plan is no object")
    encoder = value.get("encoder")
    decoder = parse_stack({key: part for key, part in value.items() if key != "encoder"}, depths[-1], given)
    if len(depths) == 1:
        if encoder is not None:
            raise ValueError("its plan has an encoder, and the model is a decoder alone")
        return decoder
    if not isinstance(encoder, dict):
        raise ValueError('the model has an encoder, of which its plan says nothing ("encoder": {"gaps": []} keeps it)')
    return replace(decoder, encoder=parse_stack(encoder, depths[0], given))


def parse_stack(value: Mapping[str, Any], depth: int, given: str) -> Plan:
    """The plan of one stack of so many layers, slot by slot, by its gaps or by slices."""
    if "slices" in value:
        return from_slices(value["slices"], depth, given)
    if "slots" in value or "gaps" not in value:
        return Plan.from_json(value)
    gaps, source = value["gaps"], value.get("source_layers", depth)
    if not isinstance(gaps, list) or not all(map(is_integer, gaps)):
        raise ValueError("its gaps are no list of numbers")
    if not is_integer(source) or not 1 <= source <= MOST_LAYERS:
        raise ValueError("its source_layers is no number of layers")
    return insert(source, check_gaps(source, gaps, given) if gaps else ())


def from_slices(slices: Any, depth: int, given: str) -> Plan:
    """Ranges of layers one after the other, each from its first layer to before its second number: the first time that
    a layer's turn comes it is the original, and before and after that a new one.

    Takes mergekit's words for it, too: `sources` of one model with a `layer_range`.
    """
    if not isinstance(slices, list):
        raise ValueError("its slices are no list")
    slots, expected = [], 0
    for number, piece in enumerate(slices):
        start, end = layer_range(piece, number)
        if not 0 <= start < end <= depth:
            raise InputError(f"{given}: slice {number} is [{start}, {end}]; the model has layers 0 to {depth - 1}")
        for layer in range(start, end):
            slots.append(Slot(layer, new=layer != expected))
            expected += layer == expected
    if len(slots) > MOST_LAYERS:
        raise ValueError(f"its slices have {len(slots)} layers")
    if expected != depth:
        raise InputError(
            f"{given}: its slices have no layer {expected} after those below it; a grown model keeps all originals, in "
            "their order"
        )
    return Plan(depth, tuple(slots))


def layer_range(piece: Any, number: int) -> tuple[int, int]:
    """The two numbers of a slice."""
    found = piece.get("layers") if isinstance(piece, dict) else None
    if found is None and isinstance(piece, dict) and isinstance(sources := piece.get("sources"), list):
        if len(sources) != 1:
            raise ValueError(f"slice {number} mixes {len(sources)} models")
        found = sources[0].get("layer_range") if isinstance(sources[0], dict) else None
    if not isinstance(found, list) or len(found) != 2 or not all(map(is_integer, found)):
        raise ValueError(f'slice {number} has no two numbers, as {{"layers": [0, 24]}} has')
    return found[0], found[1]


def check_places(plan: Plan, method: Method, given: str) -> None:
    """Refuses new layers that do not lie above the original that they name, or where the method cannot fill them."""
    for position, layer, below in zip(plan.new_layers, plan.gaps, plan.below, strict=True):
        if layer > below:
            raise InputError(
                f"{given}: slot {position} is a new layer above original {layer}, but lies below it; name one that "
                "lies below"
            )
        if not method.start.anywhere and (layer < below or layer == plan.source_layers - 1):
            raise InputError(
                f"{given}: slot {position} does not lie between original {layer}, which it names, and the next one, "
                f"as --method {method.name} needs; take one that copies the layer below, such as duplicate"
            )
