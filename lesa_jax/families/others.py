"""Decoders of other houses: Cohere, GLM-4, StableLM, StarCoder 2, Falcon, GPT-NeoX and Pythia."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families.entries import flag, integer, integer_or_none, number
from lesa_jax.families.family import Family
from lesa_jax.families.llama import NAMES, WITH_HEAD_NORMS
from lesa_jax.families.model import ModelConfig, Names, Norm
from lesa_jax.families.reading import (
    all_biases,
    describe,
    layer_kinds,
    read_activation,
    read_head_dim,
    read_kv_heads,
    read_layers,
    rotated_by_window,
    split_evenly,
    window_everywhere,
    windows_of,
)
from lesa_jax.families.rotation import read_rope

COHERE_NAMES = replace(NAMES, feed_forward_norm=None)
COHERE_NAMES_WITH_NORMS = replace(WITH_HEAD_NORMS, feed_forward_norm=None)
GLM_NAMES = replace(NAMES, gate=None, up=None, gate_up="mlp.gate_up_proj")
GLM4_NAMES = replace(
    GLM_NAMES, attention_output_norm="post_self_attn_layernorm", feed_forward_output_norm="post_mlp_layernorm"
)
STARCODER2_NAMES = replace(NAMES, gate=None, up="mlp.c_fc", down="mlp.c_proj")
NEOX_NAMES = Names(
    embedding="gpt_neox.embed_in",
    final_norm="gpt_neox.final_layer_norm",
    head="embed_out",
    layers="gpt_neox.layers",
    attention_norm="input_layernorm",
    qkv="attention.query_key_value",
    attention_output="attention.dense",
    feed_forward_norm="post_attention_layernorm",
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
)
FALCON_NAMES = Names(
    embedding="transformer.word_embeddings",
    final_norm="transformer.ln_f",
    head="lm_head",
    layers="transformer.h",
    attention_norm="input_layernorm",
    qkv="self_attention.query_key_value",
    attention_output="self_attention.dense",
    up="mlp.dense_h_to_4h",
    down="mlp.dense_4h_to_h",
)


def cohere(config: Mapping[str, Any], **said: Any) -> ModelConfig:
    """Attention and feed-forward network side by side behind one LayerNorm without bias; neighbours are rotated."""
    bias = flag(config, "attention_bias")
    normed = config["model_type"] == "cohere" and flag(config, "use_qk_norm")
    return describe(
        config,
        COHERE_NAMES_WITH_NORMS if normed else COHERE_NAMES,
        norm=Norm(centred=True, eps=number(config, "layer_norm_eps", 1e-5)),
        tied=flag(config, "tie_word_embeddings", True),
        interleaved=True,
        parallel=True,
        qk_norm="heads" if normed else None,
        qkv_bias=bias,
        output_bias=bias,
        logit_scale=number(config, "logit_scale", 0.0625),
        **said,
    )


def cohere1(config: Mapping[str, Any]) -> ModelConfig:
    head_dim = read_head_dim(config, integer(config, "hidden_size"), integer(config, "num_attention_heads"))
    return cohere(config, ropes=(read_rope(config, head_dim, theta=500000.0),))


def cohere2(config: Mapping[str, Any]) -> ModelConfig:
    """A window in all but every fourth layer; only layers with one are rotated."""
    every = integer(config, "sliding_window_pattern", 4)
    kinds = layer_kinds(config, read_layers(config), lambda layer: (layer + 1) % every != 0)
    base = cohere(config, windows=windows_of(kinds, integer_or_none(config, "sliding_window", 4096)))
    return rotated_by_window(base, None, *base.ropes)


def glm(config: Mapping[str, Any], names: Names = GLM_NAMES) -> ModelConfig:
    """Half of a head is rotated, neighbour with neighbour; gate and up are one matrix."""
    head_dim = integer_or_none(config, "head_dim") or 128
    return describe(
        config,
        names,
        num_kv_heads=read_kv_heads(config, 2),
        head_dim=head_dim,
        norm=Norm(centred=False, eps=number(config, "rms_norm_eps", 1.5625e-7)),
        ropes=(read_rope(config, head_dim, share=0.5),),
        interleaved=True,
        qkv_bias=flag(config, "attention_bias", True),
    )


def glm4(config: Mapping[str, Any]) -> ModelConfig:
    """GLM with norms of what each half of a layer adds, too."""
    return glm(config, GLM4_NAMES)


def stablelm(config: Mapping[str, Any]) -> ModelConfig:
    if config.get("qk_layernorm"):
        raise InputError(
            "config.json: qk_layernorm is not implemented for stablelm, whose heads have a norm each; such a model "
            "can be grown, but not run"
        )
    head_dim = split_evenly(
        integer(config, "hidden_size"), integer(config, "num_attention_heads"), config.get("head_dim")
    )
    parallel = flag(config, "use_parallel_residual")
    return describe(
        config,
        replace(NAMES, feed_forward_norm=None) if parallel else NAMES,
        num_kv_heads=read_kv_heads(config, 32),
        head_dim=head_dim,
        norm=Norm(centred=True, eps=number(config, "layer_norm_eps", 1e-5), bias=True),
        ropes=(read_rope(config, head_dim, share=0.25),),
        parallel=parallel,
        qkv_bias=flag(config, "use_qkv_bias"),
    )


def starcoder2(config: Mapping[str, Any]) -> ModelConfig:
    bias = flag(config, "use_bias", True)
    return describe(
        config,
        STARCODER2_NAMES,
        num_kv_heads=read_kv_heads(config, 2),
        norm=Norm(centred=True, eps=number(config, "norm_epsilon", 1e-5), bias=True),
        tied=flag(config, "tie_word_embeddings", True),
        windows=window_everywhere(config, None),
        activation=read_activation(config, "hidden_act", "gelu_pytorch_tanh"),
        **all_biases(bias),
    )


def gpt_neox(config: Mapping[str, Any]) -> ModelConfig:
    """Attention and feed-forward network side by side, each with a LayerNorm of its own; a quarter is rotated."""
    heads, bias = integer(config, "num_attention_heads"), flag(config, "attention_bias", True)
    head_dim = split_evenly(integer(config, "hidden_size"), heads, config.get("head_dim"))
    return describe(
        config,
        NEOX_NAMES,
        num_kv_heads=heads,
        head_dim=head_dim,
        norm=Norm(centred=True, eps=number(config, "layer_norm_eps", 1e-5), bias=True),
        ropes=(read_rope(config, head_dim, share=0.25, beside=("rotary_emb_base", "rotary_pct")),),
        activation=read_activation(config, "hidden_act", "gelu"),
        parallel=flag(config, "use_parallel_residual", True),
        qkv_groups=heads,
        qkv_bias=bias,
        output_bias=bias,
        up_bias=True,
        down_bias=True,
    )


def falcon(config: Mapping[str, Any]) -> ModelConfig:
    """Three layouts of queries, keys and values in one matrix, and up to two LayerNorms in front."""
    if config.get("alibi"):
        raise InputError("config.json: alibi is not implemented; such a falcon can be grown, but not run")
    heads, bias = integer(config, "num_attention_heads"), flag(config, "bias")
    hidden = integer_or_none(config, "n_embed") or integer(config, "hidden_size")
    new, parallel = flag(config, "new_decoder_architecture"), flag(config, "parallel_attn", True)
    if new:
        kv_heads = groups = integer_or_none(config, "num_kv_heads", heads) or heads
    elif flag(config, "multi_query", True):
        kv_heads = groups = 1
    else:
        kv_heads = groups = heads
    norms = integer_or_none(config, "num_ln_in_parallel_attn") or (2 if new else 1)
    if (new and not parallel) or norms not in ((1, 2) if new else (1,)):
        raise InputError(
            f"config.json: new_decoder_architecture {new}, parallel_attn {parallel} and num_ln_in_parallel_attn "
            f"{norms} do not go together in a falcon"
        )
    if not parallel:
        names = replace(FALCON_NAMES, feed_forward_norm="post_attention_layernorm")
    elif norms == 2:
        names = replace(FALCON_NAMES, attention_norm="ln_attn", feed_forward_norm="ln_mlp")
    else:
        names = FALCON_NAMES
    head_dim = split_evenly(hidden, heads)
    return describe(
        config,
        names,
        hidden_size=hidden,
        intermediate_size=integer_or_none(config, "ffn_hidden_size") or 4 * hidden,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=integer(config, "max_position_embeddings", 2048),
        norm=Norm(centred=True, eps=number(config, "layer_norm_epsilon", 1e-5), bias=True),
        tied=flag(config, "tie_word_embeddings", True),
        ropes=(read_rope(config, head_dim),),
        activation=read_activation(config, "activation", "gelu"),
        parallel=parallel,
        qkv_groups=groups,
        **all_biases(bias),
    )


COHERE = Family("cohere", "Command R, Aya 23", cohere1)
COHERE2 = Family("cohere2", "Command R7B, Command A", cohere2)
GLM = Family("glm", "GLM-4 9B", glm)
GLM4 = Family("glm4", "GLM-4 0414", glm4)
STABLELM = Family("stablelm", "StableLM 2 1.6B, Zephyr 3B", stablelm)
STARCODER2 = Family("starcoder2", "StarCoder 2", starcoder2)
GPT_NEOX = Family("gpt_neox", "Pythia, GPT-NeoX", gpt_neox)
FALCON = Family("falcon", "Falcon 1", falcon)
