"""OpenELM: layers of one model with numbers of heads and feed-forward widths of their own (arXiv 2404.14619)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families.entries import FLOAT32, LARGEST, MOST_LAYERS, flag, integer, is_integer, number, wrong
from lesa_jax.families.family import Family
from lesa_jax.families.model import ModelConfig, Names, Norm, Sizes
from lesa_jax.families.reading import describe, read_activation, read_head_dim
from lesa_jax.families.rotation import read_rope

NAMES = Names(
    embedding="transformer.token_embeddings",
    final_norm="transformer.norm",
    head="lm_head",
    layers="transformer.layers",
    attention_norm="attn_norm",
    qkv="attn.qkv_proj",
    attention_output="attn.out_proj",
    feed_forward_norm="ffn_norm",
    gate_up="ffn.proj_1",
    down="ffn.proj_2",
)
WITH_QUERY_NORMS = replace(NAMES, query_norm="attn.q_norm", key_norm="attn.k_norm")
QK_NORMS = ("head", "all")


def round_openelm(width: float, divisor: int) -> int:
    """The nearest multiple of `divisor`, or the next one where that is less than 0.9 of `width`; at least `divisor`.

    Source: apple/corenet, corenet/utils/math_utils.py (`make_divisible`); llama.cpp and mlx-lm read checkpoints by it.
    """
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


def openelm(config: Mapping[str, Any]) -> ModelConfig:
    """Norms of queries and keys are over a head each. Two entries are ours: `qk_norm: all`, over all heads (OLMo 2's),
    and `norm_scales`, LayerNorm Scaling (arXiv 2502.05795) or any other factors on what layers read."""
    layers = integer(config, "num_transformer_layers", most=MOST_LAYERS)
    if config.get("normalization_layer_name", "rms_norm") != "rms_norm":
        raise InputError("config.json: normalization_layer_name is not implemented but for rms_norm")
    normed = flag(config, "normalize_qk_projections", True)
    over = config.get("qk_norm", "head")
    if over not in QK_NORMS:
        raise wrong("qk_norm", over, f"one of {', '.join(QK_NORMS)}")
    names = WITH_QUERY_NORMS if normed else NAMES
    if not flag(config, "ffn_with_glu", True):
        names = replace(names, gate_up=None, up="ffn.proj_1")
    hidden, sizes = integer(config, "model_dim"), read_sizes(config, layers)
    head_dim = read_head_dim(config, hidden, sizes[0].num_heads)
    model = describe(
        config,
        names,
        num_layers=layers,
        hidden_size=hidden,
        **sizes[0]._asdict(),
        head_dim=head_dim,
        max_position_embeddings=integer(config, "max_context_length", 2048),
        norm=Norm(centred=False, eps=1e-6),
        tied=flag(config, "share_input_output_layers", True),
        ropes=(read_rope(config, head_dim, theta=number(config, "rope_freq_constant", 10000.0)),),
        activation=read_activation(config, "activation_fn_name", "swish"),
        qk_norm=over if normed else None,
        norm_scales=read_scales(config, layers),
    )
    return model.with_sizes(sizes)


def read_sizes(config: Mapping[str, Any], layers: int) -> list[Sizes]:
    """Of each layer.

    Raises:
      InputError: a list that is missing, damaged, or of another length; heads that do not share keys evenly, or in
        some layers otherwise than in others.
    """
    heads, kv_heads = (read_list(config, key, layers) for key in ("num_query_heads", "num_kv_heads"))
    widths = read_widths(config, layers)
    for layer, (queries, keys) in enumerate(zip(heads, kv_heads, strict=True)):
        if queries % keys or queries * kv_heads[0] != keys * heads[0]:
            raise InputError(
                f"config.json: layer {layer} has {queries} query heads to {keys} of keys (num_query_heads, "
                f"num_kv_heads); expected a whole number of queries to a key, in all layers that of layer 0: "
                f"{heads[0]} to {kv_heads[0]}"
            )
    return [Sizes(*sizes) for sizes in zip(heads, kv_heads, widths, strict=True)]


def read_list(config: Mapping[str, Any], key: str, layers: int) -> list[int]:
    """A positive number for each layer."""
    values = config.get(key)
    whole = isinstance(values, list) and all(is_integer(value) and 1 <= value <= LARGEST for value in values)
    if not isinstance(values, list) or not whole or len(values) != layers:
        raise wrong(key, values, f"a positive integer for each of {layers} layers (num_transformer_layers)")
    return values


def read_scales(config: Mapping[str, Any], layers: int) -> tuple[float, ...]:
    """A factor for each layer; none where the entry is missing."""
    values = config.get("norm_scales")
    if values is None:
        return ()
    if not isinstance(values, list) or len(values) != layers or not all(is_multiplier(value) for value in values):
        raise wrong("norm_scales", values, f"a positive number for each of {layers} layers (num_transformer_layers)")
    return tuple(map(float, values))


def read_widths(config: Mapping[str, Any], layers: int) -> list[int]:
    """Feed-forward widths, rounded as all readers of such checkpoints round them."""
    values, hidden = config.get("ffn_multipliers"), integer(config, "model_dim")
    if not isinstance(values, list) or len(values) != layers or not all(is_multiplier(value) for value in values):
        raise wrong(
            "ffn_multipliers", values, f"a positive number for each of {layers} layers (num_transformer_layers)"
        )
    divisor = integer(config, "ffn_dim_divisor", 256)
    return [round_openelm(value * hidden, divisor) for value in values]


def is_multiplier(value: Any) -> bool:
    """Whether it is a positive number that makes a width of a model of any hidden size."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and FLOAT32[0] <= value <= 2**16


OPENELM = Family("openelm", "OpenELM, and what `lesa profile` describes", openelm)
