"""Grows config.json with the plan: the layer count and every field that speaks of single layers.

transformers derives some per-layer fields from others (`layer_types` from `sliding_window_pattern`); after an insertion
the same rule would give old layers another kind. So each field is resolved for the original model first, then gathered
through the plan and written out, and the result must pass transformers' own validation before anything is computed.
"""

import copy
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lesa_jax.errors import InputError
from lesa_jax.names import Stack
from lesa_jax.plan import Plan

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
# Lists of layer numbers, and counts of the first layers that are of one kind.
LAYER_NUMBERS = ("mlp_only_layers", "moe_layers", "cross_attention_layers", "attn_layer_indices", "full_attn_idxs")
FIRST_LAYERS = ("max_window_layers", "first_k_dense_replace", "num_dense_layers")
# Lists that may have as many entries as there are layers and still not be about layers.
NOT_PER_LAYER = ("architectures", "token_id", "token_ids", "keys_to_ignore_at_inference", "_section", "_factor")
# Fields by which a layer's function depends on its number in a way that no other field can undo.
BY_POSITION = {
    "scale_attn_by_inverse_layer_idx": False,
    "hidden_size_per_layer_input": 0,
    "attn_layer_period": 1,
    "expert_layer_period": 1,
    "moe_layer_frequency": 1,
    "interleave_moe_layer_step": 1,
}


def text_section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config that describes the language model: itself, or `text_config` of a multimodal model."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def count_layers(config: Mapping[str, Any]) -> int:
    """How many layers config.json declares.

    Raises:
      InputError: none declared, or an encoder-decoder with two stacks.
    """
    section = text_section(config)
    if config.get("is_encoder_decoder") or "num_decoder_layers" in section or "decoder_layers" in section:
        raise InputError(
            f"config.json: {config.get('model_type')} is an encoder-decoder; only decoders can be grown yet"
        )
    for key in LAYER_COUNTS:
        if isinstance(section.get(key), int):
            return section[key]
    raise InputError(f"config.json: none of {', '.join(LAYER_COUNTS)}: cannot tell how many layers the model has")


def find_layers(config: Mapping[str, Any], stacks: tuple[Stack, ...]) -> str:
    """The name prefix of the layers, such as `model.layers.`, checked against config.json.

    Raises:
      InputError: the tensors and the config disagree on the number of layers, or layers are missing in between.
    """
    declared = count_layers(config)
    depths: dict[str, set[int]] = {}
    for stack in stacks:
        if stack.sizes:
            numbers = range(stack.starts[0], stack.starts[0] + stack.sizes[0])
            depths.setdefault(stack.prefix, set()).update(numbers)
    text = {
        p: d
        for p, d in depths.items()
        if not {"vision", "visual", "audio", "encoder"} & set(p.replace("_", ".").split("."))
    }
    if not text:
        raise InputError("the checkpoint's tensor names carry no layer numbers; it cannot be grown in depth")
    prefix = max(text, key=lambda p: (len(text[p]) == declared, len(text[p])))
    numbers = text[prefix]
    if max(numbers) + 1 == declared and len(numbers) < declared:
        missing = min(set(range(declared)) - numbers)
        raise InputError(
            f"no tensors named {prefix}{missing}.*, though layer {max(numbers)} is there; download it again"
        )
    if len(numbers) != declared or max(numbers) + 1 != declared:
        raise InputError(
            f"config.json declares {declared} layers but the tensors {prefix}* have {len(numbers)} "
            f"(0..{max(numbers)}); correct num_hidden_layers or take the complete checkpoint"
        )
    return prefix


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


def grow_configs_apart(config: Mapping[str, Any], plans: Sequence[Plan]) -> list[dict[str, Any] | InputError]:
    """`grow_config` for each plan, in a process of its own when torch is installed and transformers not yet imported.

    transformers imports torch if it finds it, even to read a config: 2 seconds and 0.2 GB that expansion has no use
    for. The other process hides torch from it.

    Returns:
      For each plan the config, or why there is none.
    """
    if "transformers" in sys.modules or importlib.util.find_spec("torch") is None:
        return [config_or_error(config, plan) for plan in plans]
    task = json.dumps({"config": config, "plans": [plan.to_json() for plan in plans]})
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "lesa_jax.hf_config"], input=task, capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"the process that reads configs failed:\n{done.stderr}")
    answers = json.loads(done.stdout)
    return [InputError(answer["error"]) if "error" in answer else answer["config"] for answer in answers]


def config_or_error(config: Mapping[str, Any], plan: Plan) -> dict[str, Any] | InputError:
    try:
        return grow_config(config, plan)
    except InputError as error:
        return error


def answer_task() -> None:
    """The other side of `grow_configs_apart`: a task on stdin, its answer on stdout."""
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] (what Python documents for hiding a module)
    task = json.load(sys.stdin)
    grown = [config_or_error(task["config"], Plan.from_json(plan)) for plan in task["plans"]]
    json.dump([{"error": str(g)} if isinstance(g, InputError) else {"config": g} for g in grown], sys.stdout)


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


if __name__ == "__main__":
    answer_task()
