"""Llama, and the families that are Llama but for a few switches."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lesa_jax.families.entries import flag, integer, integer_or_none, number, wrong
from lesa_jax.families.family import Family
from lesa_jax.families.model import ModelConfig, Names, Norm
from lesa_jax.families.reading import (
    describe,
    layer_kinds,
    read_activation,
    read_kv_heads,
    read_layers,
    window_everywhere,
    windows_of,
)
from lesa_jax.families.rotation import read_rope

NAMES = Names(
    embedding="model.embed_tokens",
    final_norm="model.norm",
    head="lm_head",
    layers="model.layers",
    attention_norm="input_layernorm",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_output="self_attn.o_proj",
    feed_forward_norm="post_attention_layernorm",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
)
WITHOUT_GATE = replace(NAMES, gate=None)
WITH_HEAD_NORMS = replace(NAMES, query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")


def biases(config: Mapping[str, Any]) -> dict[str, bool]:
    """Of all linear layers, by the two entries that Llama has for them."""
    attention, mlp = flag(config, "attention_bias"), flag(config, "mlp_bias")
    return {"qkv_bias": attention, "output_bias": attention, "up_bias": mlp, "down_bias": mlp}


def llama(config: Mapping[str, Any]) -> ModelConfig:
    return describe(config, NAMES, **biases(config))


def mistral(config: Mapping[str, Any]) -> ModelConfig:
    return describe(
        config,
        NAMES,
        num_kv_heads=read_kv_heads(config, 8),
        windows=window_everywhere(config, 4096),
    )


def ministral(config: Mapping[str, Any]) -> ModelConfig:
    window = integer_or_none(config, "sliding_window", 4096)
    kinds = layer_kinds(config, read_layers(config), lambda layer: window is not None)
    return describe(config, NAMES, windows=windows_of(kinds, window))


def qwen_windows(config: Mapping[str, Any]) -> tuple[int | None, ...]:
    """A window in the layers from `max_window_layers` on, or in those that `layer_types` names."""
    first = integer(config, "max_window_layers", 28, least=0)
    window = integer_or_none(config, "sliding_window", 4096) if flag(config, "use_sliding_window") else None
    kinds = layer_kinds(config, read_layers(config), lambda layer: window is not None and layer >= first)
    return windows_of(kinds, window)


def qwen2(config: Mapping[str, Any]) -> ModelConfig:
    return describe(config, NAMES, num_kv_heads=read_kv_heads(config, 32), qkv_bias=True, windows=qwen_windows(config))


def qwen3(config: Mapping[str, Any]) -> ModelConfig:
    bias = flag(config, "attention_bias")
    return describe(
        config,
        WITH_HEAD_NORMS,
        num_kv_heads=read_kv_heads(config, 32),
        head_dim=integer(config, "head_dim", 128),
        qk_norm="head",
        qkv_bias=bias,
        output_bias=bias,
        windows=qwen_windows(config),
    )


def smollm3(config: Mapping[str, Any]) -> ModelConfig:
    """Some layers have no rotation: those with a 0 in `no_rope_layers`, or every fourth."""
    layers = read_layers(config)
    rotated = config.get("no_rope_layers")
    if rotated is None:
        every = integer(config, "no_rope_layer_interval", 4)
        rotated = [int((layer + 1) % every != 0) for layer in range(layers)]
    if not isinstance(rotated, list) or len(rotated) != layers or not all(value in (0, 1) for value in rotated):
        raise wrong("no_rope_layers", rotated, f"a list of {layers} entries, 1 for a rotated layer and 0 for another")
    window = integer_or_none(config, "sliding_window") if flag(config, "use_sliding_window") else None
    kinds = layer_kinds(config, layers, lambda layer: window is not None and not rotated[layer])
    base = describe(
        config,
        NAMES,
        num_kv_heads=read_kv_heads(config, 4),
        windows=windows_of(kinds, window),
        tied=flag(config, "tie_word_embeddings", True),
        **biases(config),
    )
    rope = read_rope(config, base.head_dim, theta=2000000.0)
    return replace(base, ropes=(None, rope), rotations=tuple(int(value) for value in rotated))


def seed_oss(config: Mapping[str, Any]) -> ModelConfig:
    mlp = flag(config, "mlp_bias")
    return describe(
        config,
        NAMES,
        num_kv_heads=read_kv_heads(config, 8),
        head_dim=integer(config, "head_dim", 128),
        qkv_bias=flag(config, "attention_bias", True),
        output_bias=flag(config, "attention_out_bias"),
        up_bias=mlp,
        down_bias=mlp,
    )


def arcee(config: Mapping[str, Any]) -> ModelConfig:
    """No gate: what goes up is squared where it is positive."""
    return describe(
        config,
        WITHOUT_GATE,
        norm=Norm(centred=False, eps=number(config, "rms_norm_eps", 1e-5)),
        activation=read_activation(config, "hidden_act", "relu2"),
        **biases(config),
    )


def granite(config: Mapping[str, Any]) -> ModelConfig:
    """Four factors: on embeddings, on scores, on what each half of a layer adds, and one that divides logits."""
    return describe(
        config,
        NAMES,
        embedding_scale=number(config, "embedding_multiplier", 1.0),
        attention_scale=number(config, "attention_multiplier", 1.0),
        residual_scale=number(config, "residual_multiplier", 1.0),
        logit_scale=1 / number(config, "logits_scaling", 1.0),
        **biases(config),
    )


LLAMA = Family("llama", "Llama 1 to 3.3, Yi, TinyLlama, SmolLM 1 and 2, Vicuna, DeepSeek-Coder", llama)
MISTRAL = Family("mistral", "Mistral 7B, Nemo, Small", mistral)
MINISTRAL = Family("ministral", "Ministral 8B", ministral)
QWEN2 = Family("qwen2", "Qwen 1.5, 2 and 2.5", qwen2)
QWEN3 = Family("qwen3", "Qwen 3", qwen3)
SMOLLM3 = Family("smollm3", "SmolLM 3", smollm3)
SEED_OSS = Family("seed_oss", "Seed-OSS", seed_oss)
ARCEE = Family("arcee", "AFM 4.5B", arcee)
GRANITE = Family("granite", "Granite 3 and 4, dense", granite)
