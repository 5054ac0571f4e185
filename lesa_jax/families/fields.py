"""The entries of config.json that speak of layers."""

from collections.abc import Iterable, Mapping
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.names import Stack
from lesa_jax.families.entries import MOST_LAYERS, integer

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers")
# The same of an encoder-decoder: T5 calls its encoder's layers as others call theirs.
ENCODER_COUNTS = ("num_layers", "encoder_layers", "num_hidden_layers")
DECODER_COUNTS = ("num_decoder_layers", "decoder_layers")
# Lists of layer numbers, and counts of the first layers that are of one kind.
LAYER_NUMBERS = (
    "mlp_only_layers",
    "moe_layers",
    "cross_attention_layers",
    "attn_layer_indices",
    "full_attn_idxs",
    "local_layer_ids",
)
FIRST_LAYERS = ("max_window_layers", "first_k_dense_replace", "num_dense_layers")
# Lists that may have as many entries as there are layers and still not be about layers.
NOT_PER_LAYER = ("architectures", "token_id", "token_ids", "keys_to_ignore_at_inference", "_section", "_factor")
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
# What other towers of a multimodal model have in their names; their layers are not the language model's.
OTHER_TOWERS = frozenset({"vision", "visual", "audio", "encoder"})
# Fields by which a layer's function depends on its number in a way that no other field can undo.
BY_POSITION = {
    "scale_attn_by_inverse_layer_idx": False,
    "hidden_size_per_layer_input": 0,
    "attn_layer_period": 1,
    "expert_layer_period": 1,
    "moe_layer_frequency": 1,
    "interleave_moe_layer_step": 1,
    "moe_layer_interval": 1,
    "moe_layer_freq": 1,
    "num_kv_shared_layers": 0,
    "cross_layer_attention": False,
}
# The first and the last layer of one kind.
LAYER_RANGES = (("moe_layer_start_index", "moe_layer_end_index"),)
# How many layers for multi-token prediction a checkpoint has, numbered on from the last one.
PREDICTION_LAYERS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers", "mtp_num_layers")


def text_section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config that describes the language model: itself, or `text_config` of a multimodal model."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def has_encoder(config: Mapping[str, Any]) -> bool:
    """Whether config.json says that the model is an encoder-decoder."""
    section = text_section(config)
    return bool(config.get("is_encoder_decoder")) or any(key in section for key in DECODER_COUNTS)


def count_layers(config: Mapping[str, Any]) -> int:
    """How many layers config.json declares.

    Raises:
      InputError: none declared, or an encoder-decoder with two stacks.
    """
    section = text_section(config)
    if has_encoder(config):
        raise InputError(f"config.json: {config.get('model_type')} is an encoder-decoder, which has two stacks")
    for key in LAYER_COUNTS:
        if section.get(key) is not None:
            return integer(section, key, most=MOST_LAYERS)
    raise InputError(f"config.json: none of {', '.join(LAYER_COUNTS)}: cannot tell how many layers the model has")


def find_layers(config: Mapping[str, Any], stacks: tuple[Stack, ...]) -> str:
    """The name prefix of the layers, such as `model.layers.`, checked against config.json.

    Raises:
      InputError: the tensors and the config disagree on the number of layers, or layers are missing in between.
    """
    declared = count_layers(config)
    depths = numbers_by_prefix(stacks)
    text = {p: d for p, d in depths.items() if OTHER_TOWERS.isdisjoint(p.replace("_", ".").split("."))}
    if not text:
        raise InputError("the checkpoint's tensor names carry no layer numbers; it cannot be grown in depth")
    prefix = max(text, key=lambda p: (len(text[p]) == declared, len(text[p])))
    check_numbers(config, prefix, text[prefix], declared)
    return prefix


def numbers_by_prefix(stacks: Iterable[Stack]) -> dict[str, set[int]]:
    """The first numbers in tensors' names, by what stands before them."""
    depths: dict[str, set[int]] = {}
    for stack in stacks:
        if stack.sizes:
            numbers = range(stack.starts[0], stack.starts[0] + stack.sizes[0])
            depths.setdefault(stack.prefix, set()).update(numbers)
    return depths


def check_numbers(config: Mapping[str, Any], prefix: str, numbers: set[int], declared: int) -> None:
    """Refuses layers that are not those that config.json declares.

    Raises:
      InputError: the tensors and the config disagree on the number of layers, or layers are missing in between.
    """
    if max(numbers) + 1 == declared and len(numbers) < declared:
        missing = min(set(range(declared)) - numbers)
        raise InputError(
            f"no tensors named {prefix}{missing}.*, though layer {max(numbers)} is there; download it again"
        )
    more = next((key for key in PREDICTION_LAYERS if text_section(config).get(key)), None)
    if more and set(range(declared)) < numbers:
        raise InputError(
            f"the tensors {prefix}{declared}.* and above predict tokens further ahead ({more} in config.json) and "
            f"cannot be grown around yet; remove them, set {more} to 0 and leave num_hidden_layers as it is"
        )
    if len(numbers) != declared or max(numbers) + 1 != declared:
        raise InputError(
            f"config.json declares {declared} layers but the tensors {prefix}* have {len(numbers)} "
            f"(0..{max(numbers)}); take the complete checkpoint and its own config.json"
        )
