"""Phi 1, 1.5 and 2 (parallel, with biases), and Phi 3 and 4 (Llama with fused projections)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families.entries import flag, integer, number
from lesa_jax.families.family import Family
from lesa_jax.families.llama import NAMES
from lesa_jax.families.model import ModelConfig, Norm
from lesa_jax.families.reading import (
    all_biases,
    describe,
    read_activation,
    read_head_dim,
    split_evenly,
    window_everywhere,
)
from lesa_jax.families.rotation import read_rope, rope_entry

PHI_NAMES = replace(
    NAMES,
    final_norm="model.final_layernorm",
    attention_output="self_attn.dense",
    feed_forward_norm=None,
    gate=None,
    up="mlp.fc1",
    down="mlp.fc2",
)
PHI_NAMES_WITH_NORMS = replace(PHI_NAMES, query_norm="self_attn.q_layernorm", key_norm="self_attn.k_layernorm")
PHI3_NAMES = replace(
    NAMES, query=None, key=None, value=None, qkv="self_attn.qkv_proj", gate=None, up=None, gate_up="mlp.gate_up_proj"
)

# Phi 3 came with one scaling, under names that have changed.
PHI3_ROTATIONS = {"default": "default", "longrope": "longrope", "su": "longrope", "yarn": "longrope"}


def phi(config: Mapping[str, Any]) -> ModelConfig:
    """Attention and feed-forward network side by side behind one LayerNorm, half of a head rotated."""
    head_dim = split_evenly(
        integer(config, "hidden_size"), integer(config, "num_attention_heads"), config.get("head_dim")
    )
    normed = flag(config, "qk_layernorm")
    return describe(
        config,
        PHI_NAMES_WITH_NORMS if normed else PHI_NAMES,
        head_dim=head_dim,
        norm=Norm(centred=True, eps=number(config, "layer_norm_eps", 1e-5), bias=True),
        ropes=(read_rope(config, head_dim, share=0.5),),
        activation=read_activation(config, "hidden_act", "gelu_new"),
        parallel=True,
        qk_norm="head" if normed else None,
        head_bias=True,
        **all_biases(True),
    )


def phi3(config: Mapping[str, Any]) -> ModelConfig:
    entry = rope_entry(config)
    kind = str(entry.get("rope_type", entry.get("type", "default")))
    if kind not in PHI3_ROTATIONS:
        raise InputError(f"config.json: rope type {kind!r} is not defined for phi3; it has {', '.join(PHI3_ROTATIONS)}")
    entry = {**entry, "rope_type": PHI3_ROTATIONS[kind]}
    config = {"original_max_position_embeddings": 4096, **config, "rope_scaling": entry}
    head_dim = read_head_dim(config, integer(config, "hidden_size"), integer(config, "num_attention_heads"))
    return describe(
        config,
        PHI3_NAMES,
        norm=Norm(centred=False, eps=number(config, "rms_norm_eps", 1e-5)),
        ropes=(read_rope(config, head_dim, share=1.0),),
        windows=window_everywhere(config, None),
    )


PHI = Family("phi", "Phi 1, 1.5 and 2", phi)
PHI3 = Family("phi3", "Phi 3 and 4, mini and medium", phi3)
