"""Grows config.json with the plan: the layer count and every field that speaks of single layers.

transformers derives some per-layer fields from others (`layer_types` from `sliding_window_pattern`); after an insertion
the same rule would give old layers another kind. So each field is resolved for the original model first, then gathered
through the plan and written out, and the result must pass transformers' own validation before anything is computed.
"""

import copy
from collections.abc import Mapping
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families.fields import BY_POSITION, FIRST_LAYERS, LAYER_COUNTS, LAYER_NUMBERS, NOT_PER_LAYER, text_section
from lesa_jax.planning.plan import Plan


def grow_config(config: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """config.json of the grown model; each new layer has the entries of the layer it was inserted above.

    Raises:
      InputError: a field that makes layers depend on their position, or a result that transformers refuses.
    """
    grown = copy.deepcopy(dict(config))
    section = text_section(grown)
    assert isinstance(section, dict)
    for field, harmless in BY_POSITION.items():
        if section.get(field, harmless) not in (harmless, None):
            raise InputError(
                f"config.json: {field}={section[field]} ties what a layer computes to its number, so inserting layers "
                "would change the old ones; such models cannot be grown"
            )
    resolved = resolve(config)
    per_layer = {
        key: gather(value, plan) for key, value in {**section, **resolved}.items() if is_per_layer(key, value, plan)
    }
    section.update(per_layer)
    for key in LAYER_COUNTS:
        if section.get(key) == plan.source_layers:
            section[key] = plan.layers
    for key in LAYER_NUMBERS:
        if isinstance(section.get(key), list):
            section[key] = [p for p, slot in enumerate(plan.slots) if slot.layer in section[key]]
    for key in FIRST_LAYERS:
        if isinstance(section.get(key), int):
            section[key] = grow_first(key, section[key], plan, listed="layer_types" in per_layer)
    if section.get("decoder_sparse_step", 1) > 1:  # every n-th layer is sparse: say instead which ones are not
        step = section["decoder_sparse_step"]
        dense = [p for p, slot in enumerate(plan.slots) if (slot.layer + 1) % step]
        section["mlp_only_layers"] = sorted({*dense, *(section.get("mlp_only_layers") or [])})
        section["decoder_sparse_step"] = 1
    after = resolve(grown)
    for key, value in per_layer.items():
        if key in after and list(after[key]) != value:
            raise InputError(f"config.json: transformers derives {key} by itself and would change old layers' entries")
    return grown


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
        full = CONFIG_MAPPING[model_type].from_dict(copy.deepcopy(dict(config))).to_dict()
    except Exception as error:  # each architecture validates in its own way and with its own exceptions
        reason = " ".join(str(error).split())
        raise InputError(f"config.json: transformers refuses it as {model_type}: {reason}") from None
    return dict(text_section(full))


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
