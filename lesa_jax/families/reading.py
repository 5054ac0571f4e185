"""From config.json to the description of a model: what most families have in common, for each to build on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families.entries import MOST_LAYERS, flag, integer, integer_or_none, number, words, wrong
from lesa_jax.families.model import ModelConfig, Names, Norm, Rope
from lesa_jax.families.rotation import FULL, SLIDING, read_rope

# Activations by what transformers calls them; of several names for one, the first is ours.
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}


def describe(config: Mapping[str, Any], names: Names, **said: Any) -> ModelConfig:
    """A description by the entries that Llama's config.json has, but for what the family has `said` of itself.

    Args:
      config: `config.json`.
      names: of the model's parts.
      said: fields of `ModelConfig`; the entries that they would be read from are not looked at.

    Raises:
      InputError: an entry that is missing, damaged or contradicts another; an activation that is not implemented.
    """
    if config.get("quantization_config"):
        raise InputError("config.json: quantization_config is set; dequantise the checkpoint before running it here")
    if config.get("use_bidirectional_attention") or not config.get("is_causal", True):
        raise InputError("config.json: use_bidirectional_attention or is_causal lets tokens see later ones: no decoder")

    def field(name: str, read: Callable[[], Any]) -> Any:
        return said.pop(name) if name in said else read()

    layers = field("num_layers", lambda: read_layers(config))
    heads = field("num_heads", lambda: integer(config, "num_attention_heads"))
    kv_heads = field("num_kv_heads", lambda: integer_or_none(config, "num_key_value_heads", heads) or heads)
    if heads % kv_heads:
        raise InputError(
            f"config.json: num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
        )
    hidden = field("hidden_size", lambda: integer(config, "hidden_size"))
    head_dim = field("head_dim", lambda: read_head_dim(config, hidden, heads))
    return ModelConfig(
        model_type=str(config["model_type"]),
        names=names,
        vocab_size=integer(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=field("intermediate_size", lambda: integer(config, "intermediate_size")),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=field("max_position_embeddings", lambda: integer(config, "max_position_embeddings")),
        norm=field("norm", lambda: Norm(centred=False, eps=number(config, "rms_norm_eps", 1e-6))),
        tied=field("tied", lambda: flag(config, "tie_word_embeddings")),
        windows=field("windows", lambda: (None,) * layers),
        ropes=field("ropes", lambda: (read_rope(config, head_dim),)),
        rotations=field("rotations", lambda: (0,) * layers),
        activation=field("activation", lambda: read_activation(config, "hidden_act", "silu")),
        **said,
    )


def read_layers(config: Mapping[str, Any]) -> int:
    return integer(config, "num_hidden_layers", most=MOST_LAYERS)


def read_kv_heads(config: Mapping[str, Any], absent: int) -> int:
    """Heads of keys and values: `absent` where config.json is silent, as many as of queries where it has null."""
    return integer_or_none(config, "num_key_value_heads", absent) or integer(config, "num_attention_heads")


def all_biases(bias: bool) -> dict[str, bool]:
    """Of the linear layers inside a layer, which have one all together or none has."""
    return {"qkv_bias": bias, "output_bias": bias, "up_bias": bias, "down_bias": bias}


def read_head_dim(config: Mapping[str, Any], hidden: int, heads: int) -> int:
    """Width of a head that is rotated."""
    head_dim = integer_or_none(config, "head_dim")
    if head_dim is None:
        head_dim = hidden // heads
    if head_dim == 0 or head_dim % 2:
        raise InputError(
            f"config.json: heads are {head_dim} wide (head_dim, or hidden_size {hidden} over num_attention_heads "
            f"{heads}); rotary attention needs an even width"
        )
    return head_dim


def split_evenly(hidden: int, heads: int, head_dim: Any = None) -> int:
    """Width of a head where the heads share the residual stream's width.

    Raises:
      InputError: they cannot, or config.json has another width, which transformers takes for the rotation only.
    """
    if hidden % heads:
        raise InputError(f"config.json: hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    if head_dim not in (None, hidden // heads):
        raise wrong("head_dim", head_dim, f"{hidden // heads}, hidden_size over num_attention_heads")
    return hidden // heads


def read_activation(config: Mapping[str, Any], key: str, absent: str) -> str:
    """What `models.layers.ACTIVATIONS` calls the activation."""
    name = config.get(key, absent)
    if not isinstance(name, str):
        raise wrong(key, name, "the name of an activation")
    if name not in ACTIVATIONS:
        raise InputError(f"config.json: {key} {name!r} is not implemented; supported: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def layer_kinds(config: Mapping[str, Any], layers: int, absent: Callable[[int], bool]) -> list[str]:
    """Which kind of attention each layer has.

    Args:
      config: `config.json`.
      layers: how many there are.
      absent: which layers have a sliding window where `layer_types` is missing.
    """
    kinds = words(config, "layer_types")
    if kinds is None:
        return [SLIDING if absent(layer) else FULL for layer in range(layers)]
    if len(kinds) != layers:
        raise InputError(f"config.json: layer_types has {len(kinds)} entries; num_hidden_layers is {layers}")
    if unknown := set(kinds) - {FULL, SLIDING}:
        raise InputError(
            f"config.json: layer_types {sorted(unknown)} are not implemented; supported: {FULL}, {SLIDING}"
        )
    return kinds


def windows_of(kinds: Sequence[str], window: int | None) -> tuple[int | None, ...]:
    """The window of each layer by its kind."""
    if window is None and SLIDING in kinds:
        raise InputError(
            f"config.json: layer_types names {SLIDING}, but sliding_window is null or use_sliding_window false"
        )
    return tuple(window if kind == SLIDING else None for kind in kinds)


def window_everywhere(config: Mapping[str, Any], absent: int | None) -> tuple[int | None, ...]:
    """One window for all layers, if there is one."""
    return (integer_or_none(config, "sliding_window", absent),) * read_layers(config)


def rotated_by_window(model: ModelConfig, full: Rope | None, sliding: Rope | None) -> ModelConfig:
    """The model with one rotation in layers without a window, and another in those with one."""
    return replace(model, ropes=(full, sliding), rotations=tuple(int(window is not None) for window in model.windows))
