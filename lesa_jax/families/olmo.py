"""OLMo 1, 2 and 3: norms without weights, then norms of what a layer adds and none of what it reads."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lesa_jax.families.entries import flag, integer_or_none, number, wrong
from lesa_jax.families.family import Family
from lesa_jax.families.llama import NAMES, WITH_HEAD_NORMS
from lesa_jax.families.model import ModelConfig, Norm
from lesa_jax.families.reading import describe, layer_kinds, read_layers, rotated_by_window, windows_of
from lesa_jax.families.rotation import FULL, SLIDING, read_ropes, rope_entries

OLMO2_NAMES = replace(
    WITH_HEAD_NORMS,
    attention_norm=None,
    attention_output_norm="post_attention_layernorm",
    feed_forward_norm=None,
    feed_forward_output_norm="post_feedforward_layernorm",
)


def olmo(config: Mapping[str, Any]) -> ModelConfig:
    bias, clip = flag(config, "attention_bias"), config.get("clip_qkv")
    return describe(
        config,
        NAMES,
        norm=Norm(centred=True, eps=1e-5, weight=False),
        qkv_bias=bias,
        output_bias=bias,
        qkv_clip=None if clip is None else number(config, "clip_qkv"),
    )


def olmo2(config: Mapping[str, Any], **said: Any) -> ModelConfig:
    bias = flag(config, "attention_bias")
    return describe(
        config,
        OLMO2_NAMES,
        norm=Norm(centred=False, eps=number(config, "rms_norm_eps", 1e-5)),
        qk_norm="all",
        qkv_bias=bias,
        output_bias=bias,
        **said,
    )


def olmo3(config: Mapping[str, Any]) -> ModelConfig:
    """A window in all but every fourth layer; long contexts stretch the wavelengths of full attention only.

    `rope_theta` beside speaks of both kinds of layers to transformers 4, and of full attention only to 5: one that
    they take for different models is refused.
    """
    theta = config.get("rope_theta", 500000.0)
    if theta != 500000 and "rope_theta" not in rope_entries(config, (FULL, SLIDING))[SLIDING]:
        raise wrong("rope_theta", theta, "500000 here, or another inside rope_parameters for each of layer_types")
    kinds = layer_kinds(config, read_layers(config), lambda layer: (layer + 1) % 4 != 0)
    base = olmo2(config, ropes=(), windows=windows_of(kinds, integer_or_none(config, "sliding_window", 4096)))
    ropes = read_ropes(config, base.head_dim, {FULL: theta, SLIDING: theta})
    return rotated_by_window(base, ropes[FULL], ropes[SLIDING])


OLMO = Family("olmo", "OLMo 1", olmo)
OLMO2 = Family("olmo2", "OLMo 2", olmo2)
OLMO3 = Family("olmo3", "OLMo 3", olmo3)
