"""Grows config.json with the plan: the layer count and every field that speaks of single layers.

transformers derives some per-layer fields from others (`layer_types` from `sliding_window_pattern`); after an insertion
the same rule would give old layers another kind. So each field is resolved for the original model first, then gathered
through the plan and written out, and the result must pass transformers' own validation before anything is computed.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families.depth import BY_DEPTH
from lesa_jax.families.entries import integer, number, words
from lesa_jax.families.fields import (
    BY_POSITION,
    DECODER_COUNTS,
    ENCODER_COUNTS,
    FIRST_LAYERS,
    LAYER_COUNTS,
    LAYER_NUMBERS,
    LAYER_RANGES,
    NOT_PER_LAYER,
    text_section,
)
from lesa_jax.planning.plan import Plan


def grow_config(config: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """config.json of the grown model; each new layer has the entries of the layer it was inserted above.

    Raises:
      InputError: a model whose layers depend on their position, or a result that transformers refuses.
    """
    grown = copy.deepcopy(dict(config))
    section = text_section(grown)
    assert isinstance(section, dict)
    resolved = resolve(config)
    known = {**resolved, **section}  # what config.json says, and defaults where it is silent
    refuse_dependent(config, known)
    if plan.encoder is not None:
        section.update(grow_counts(known, plan, plan.encoder))
        resolve(grown)
        return grown
    per_layer = {
        key: gather(value, plan) for key, value in {**section, **resolved}.items() if is_per_layer(key, value, plan)
    }
    section.update(per_layer)
    for key in LAYER_COUNTS:
        if section.get(key) == plan.source_layers:
            section[key] = plan.layers
    places = grow_places(known, plan, listed="layer_types" in per_layer) | grow_rules(known, plan)
    section.update({key: value for key, value in places.items() if key in section or value != known.get(key)})
    after = resolve(grown)
    for key, value in per_layer.items():
        if key in after and list(after[key]) != value:
            raise InputError(f"config.json: transformers derives {key} by itself and would change old layers' entries")
    return grown


def grow_counts(known: Mapping[str, Any], decoder: Plan, encoder: Plan) -> dict[str, int]:
    """The layer counts of an encoder-decoder, also where config.json leaves the decoder's to be the encoder's."""
    counts = dict.fromkeys(ENCODER_COUNTS, encoder.layers) | dict.fromkeys(DECODER_COUNTS, decoder.layers)
    return {key: count for key, count in counts.items() if known.get(key) is not None}


def refuse_dependent(config: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuses models in which what a layer computes depends on its number, so that inserting layers changes it."""
    for model_type in (known.get("model_type"), config.get("model_type")):
        if isinstance(model_type, str) and model_type in BY_DEPTH:
            raise InputError(f"{model_type} models cannot be grown: {BY_DEPTH[model_type]}")
    for field, harmless in BY_POSITION.items():
        if known.get(field, harmless) not in (harmless, None):
            raise InputError(
                f"config.json: {field}={known[field]} ties what a layer computes to its number, so inserting layers "
                "would change the old ones; such models cannot be grown"
            )


def grow_places(known: Mapping[str, Any], plan: Plan, listed: bool) -> dict[str, Any]:
    """The entries that hold numbers of layers: lists of them, counts of first layers, ranges, tables by number.

    `listed` says that a list names the kind of each layer, and overrides what only implies it.
    """
    places: dict[str, Any] = {}
    for key in LAYER_NUMBERS:
        if isinstance(known.get(key), list):
            places[key] = [p for p, slot in enumerate(plan.slots) if slot.layer in known[key]]
    for key in FIRST_LAYERS:
        if known.get(key) is not None:
            first = integer(known, key, least=0)
            places[key] = grow_first(key, first, plan, listed)
    for first, last in LAYER_RANGES:
        if known.get(first) is not None and known.get(last) is not None:
            ends = integer(known, first, least=0), integer(known, last, least=-1)
            places |= zip((first, last), grow_range(first, ends, plan), strict=True)
    if isinstance(table := known.get("per_layer_config"), Mapping):
        places["per_layer_config"] = grow_table(table, plan)
    step = known.get("decoder_sparse_step")
    if step is not None and integer(known, "decoder_sparse_step") > 1:  # every n-th layer is sparse: say which are not
        dense = [p for p, slot in enumerate(plan.slots) if (slot.layer + 1) % step]
        places["mlp_only_layers"] = sorted({*dense, *places.get("mlp_only_layers", [])})
        places["decoder_sparse_step"] = 1
    return places


def grow_rules(known: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The entries from which transformers derives the kinds of layers, or a factor, by the number of layers."""
    rules: dict[str, Any] = {}
    if kinds := words(known, "block_types"):  # repeated over the layers (recurrent_gemma)
        rules["block_types"] = gather([kinds[i % len(kinds)] for i in range(plan.source_layers)], plan)
    if known.get("attention_types") and isinstance(known.get("attention_layers"), list):  # gpt_neo
        rules["attention_types"] = [[[kind], 1] for kind in gather(known["attention_layers"], plan)]
    if known.get("scale_depth") is not None:  # of the square root of the layer count (minicpm)
        rules["scale_depth"] = number(known, "scale_depth") * math.sqrt(plan.layers / plan.source_layers)
    points, heads = known.get("qkv_multipliers"), known.get("num_query_heads")
    if isinstance(points, list) and isinstance(heads, list) and len(points) == 2:  # a line over the layers (openelm)
        width = integer(known, "head_dim") / integer(known, "model_dim")
        rules["qkv_multipliers"] = [count * width for count in gather(heads, plan)]
    return rules


def config_changes(source: Mapping[str, Any], grown: Mapping[str, Any]) -> dict[str, Any]:
    """What growth did to config.json, for `undo_changes`: `entries` as they were before, names that were `absent`."""
    before, after = text_section(source), text_section(grown)
    # By what is written, in which neither 1 is true, nor is NaN unlike itself.
    changed = {key: value for key, value in before.items() if repr(value) != repr(after.get(key, ...))}
    return {"entries": changed, "absent": [key for key in after if key not in before]}


def undo_changes(grown: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """config.json as it was before growth, its entries in their order; what else was changed since stays."""
    source = copy.deepcopy(dict(grown))
    section = text_section(source)
    assert isinstance(section, dict)
    section.update(changes["entries"])
    for key in changes["absent"]:
        section.pop(key, None)
    return source


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text section with every default filled in by transformers; empty for a type that it does not know.

    Raises:
      InputError: transformers refuses the config.
    """
    from transformers import CONFIG_MAPPING, logging  # slow to import, so only when needed

    logging.set_verbosity_error()
    model_type = str(config.get("model_type"))
    if model_type not in CONFIG_MAPPING:
        return {}
    try:
        full = CONFIG_MAPPING[model_type].from_dict(untagged(copy.deepcopy(dict(config)))).to_dict()
    except Exception as error:  # each architecture validates in its own way and with its own exceptions
        reason = " ".join(str(error).split())
        raise InputError(f"config.json: transformers refuses it as {model_type}: {reason}") from None
    return dict(text_section(full))


def untagged(value: Any) -> Any:
    """What transformers' own reader makes of a config: `{"__float__": "Infinity"}` stands for a number."""
    if isinstance(value, dict):
        return float(value["__float__"]) if is_tagged(value) else {key: untagged(item) for key, item in value.items()}
    return [untagged(item) for item in value] if isinstance(value, list) else value


def is_tagged(value: Mapping[Any, Any]) -> bool:
    return value.keys() == {"__float__"} and value["__float__"] in ("Infinity", "-Infinity", "NaN")


def is_per_layer(key: str, value: Any, plan: Plan) -> bool:
    named_otherwise = key in LAYER_NUMBERS or key.endswith(NOT_PER_LAYER)
    return isinstance(value, (list, tuple)) and len(value) == plan.source_layers and not named_otherwise


def gather(values: list[Any] | tuple[Any, ...], plan: Plan) -> list[Any]:
    return [values[slot.layer] for slot in plan.slots]


def grow_first(key: str, first: int, plan: Plan, listed: bool) -> int:
    """A count of first layers after growth: as many slots as come from those layers.

    They must still come first, unless a list (`layer_types`) says the same layer by layer and overrides the count.
    """
    belongs = [slot.layer < first for slot in plan.slots]
    if belongs != sorted(belongs, reverse=True) and not (listed and key == "max_window_layers"):
        raise InputError(
            f"config.json: {key}={first} cannot describe the grown model; use a method that inserts layers"
        )
    return sum(belongs) + max(0, first - plan.source_layers)


def grow_range(key: str, ends: tuple[int, int], plan: Plan) -> tuple[int, int]:
    """The first and the last layer of one kind after growth; a last one of -1 is the model's last."""
    first, last = ends[0], ends[1] if ends[1] >= 0 else plan.source_layers - 1
    inside = [p for p, slot in enumerate(plan.slots) if first <= slot.layer <= last]
    if not inside:
        return plan.layers, plan.layers
    if inside != list(range(inside[0], inside[-1] + 1)):
        raise InputError(
            f"config.json: {key}={first} cannot describe the grown model; use a method that inserts layers"
        )
    return inside[0], inside[-1]


def grow_table(table: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """A table by number of layer; what goes by another name in it stays."""
    by_number = {int(key): value for key, value in table.items() if str(key).isdecimal()}
    rest = {key: value for key, value in table.items() if not str(key).isdecimal()}
    return rest | {str(p): by_number[slot.layer] for p, slot in enumerate(plan.slots) if slot.layer in by_number}
