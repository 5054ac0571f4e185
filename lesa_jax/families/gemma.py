"""Gemma 1, 2 and 3 (text): embeddings scaled by the root of their width, norms whose weight w stands for 1 + w."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lesa_jax.families.entries import flag, integer, integer_or_none, number, wrong
from lesa_jax.families.family import Family
from lesa_jax.families.llama import NAMES, WITH_HEAD_NORMS
from lesa_jax.families.model import ModelConfig, Names, Norm
from lesa_jax.families.reading import (
    describe,
    layer_kinds,
    read_activation,
    read_kv_heads,
    read_layers,
    rotated_by_window,
    windows_of,
)
from lesa_jax.families.rotation import FULL, SLIDING, read_ropes

BOTH_SIDES = {
    "attention_output_norm": "post_attention_layernorm",
    "feed_forward_norm": "pre_feedforward_layernorm",
    "feed_forward_output_norm": "post_feedforward_layernorm",
}
GEMMA2_NAMES = replace(NAMES, **BOTH_SIDES)
GEMMA3_NAMES = replace(WITH_HEAD_NORMS, **BOTH_SIDES)


def gemma_like(config: Mapping[str, Any], names: Names, **said: Any) -> ModelConfig:
    """What all three have in common."""
    bias = flag(config, "attention_bias")
    return describe(
        config,
        names,
        head_dim=integer(config, "head_dim", 256),
        norm=Norm(centred=False, eps=number(config, "rms_norm_eps", 1e-6), shifted=True),
        tied=flag(config, "tie_word_embeddings", True),
        embedding_scale=math.sqrt(integer(config, "hidden_size")),
        qkv_bias=bias,
        output_bias=bias,
        **said,
    )


def gemma(config: Mapping[str, Any]) -> ModelConfig:
    activation = read_activation(config, "hidden_act", "gelu_pytorch_tanh")
    return gemma_like(
        config,
        NAMES,
        num_kv_heads=read_kv_heads(config, 16),
        activation="gelu_tanh" if activation == "gelu" else activation,  # the first config.json said so and meant this
    )


def gemma2(config: Mapping[str, Any], names: Names = GEMMA2_NAMES, every: int = 2, **said: Any) -> ModelConfig:
    """Norms on both sides of each half of a layer, capped scores and logits, a window in all but every n-th layer."""
    window, layers = integer_or_none(config, "sliding_window", 4096), read_layers(config)
    kinds = layer_kinds(config, layers, lambda layer: (layer + 1) % every != 0)
    return gemma_like(
        config,
        names,
        num_kv_heads=read_kv_heads(config, 4),
        activation=read_activation(config, "hidden_activation", "gelu_pytorch_tanh"),
        attention_scale=number(config, "query_pre_attn_scalar", 256.0) ** -0.5,
        windows=windows_of(kinds, window),
        **{
            "attention_cap": cap(config, "attn_logit_softcapping", 50.0),
            "logit_cap": cap(config, "final_logit_softcapping", 30.0),
        }
        | said,
    )


def cap(config: Mapping[str, Any], key: str, absent: float | None) -> float | None:
    """A bound, or none where config.json has null."""
    return None if config.get(key, absent) is None else number({key: absent, **config}, key)


def gemma3(config: Mapping[str, Any]) -> ModelConfig:
    """Norms of queries and keys, and layers with a window turn faster than the others."""
    if config.get("attn_logit_softcapping") is not None:
        raise wrong(
            "attn_logit_softcapping", config["attn_logit_softcapping"], "null: transformers does not cap it here"
        )
    every = integer(config, "sliding_window_pattern", 6)
    theta = {FULL: config.get("rope_theta", 1e6), SLIDING: config.get("rope_local_base_freq", 10000.0)}
    base = gemma2(
        config,
        GEMMA3_NAMES,
        every,
        qk_norm="head",
        attention_cap=None,
        logit_cap=cap(config, "final_logit_softcapping", None),
        ropes=(),
    )
    ropes = read_ropes(config, base.head_dim, theta)
    return rotated_by_window(base, ropes[FULL], ropes[SLIDING])


GEMMA = Family("gemma", "Gemma 1", gemma)
GEMMA2 = Family("gemma2", "Gemma 2", gemma2)
GEMMA3 = Family("gemma3_text", "Gemma 3, text", gemma3)
