"""Decoders with mixtures of experts that are else Llama, Qwen, OLMo or Granite."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lesa_jax.families.entries import flag, integer, integer_or_none, is_integer, number, wrong
from lesa_jax.families.family import Family
from lesa_jax.families.fields import EXPERT_COUNTS
from lesa_jax.families.llama import NAMES, WITH_HEAD_NORMS, granite
from lesa_jax.families.model import ExpertNames, Experts, ModelConfig, Names, Norm
from lesa_jax.families.reading import (
    describe,
    layer_kinds,
    read_head_dim,
    read_kv_heads,
    read_layers,
    window_everywhere,
    windows_of,
)
from lesa_jax.families.rotation import read_rope

NUMBERED = ExpertNames(
    router="mlp.gate",
    gate="mlp.experts.*.gate_proj",
    up="mlp.experts.*.up_proj",
    down="mlp.experts.*.down_proj",
)
MIXTRAL_EXPERTS = ExpertNames(
    router="block_sparse_moe.gate",
    gate="block_sparse_moe.experts.*.w1",
    up="block_sparse_moe.experts.*.w3",
    down="block_sparse_moe.experts.*.w2",
)
GRANITE_EXPERTS = ExpertNames(
    router="block_sparse_moe.router.layer",
    gate_up="block_sparse_moe.input_linear",
    down="block_sparse_moe.output_linear",
)
QWEN2_EXPERTS = replace(
    NUMBERED,
    shared_gate="mlp.shared_expert.gate_proj",
    shared_up="mlp.shared_expert.up_proj",
    shared_down="mlp.shared_expert.down_proj",
    shared_router="mlp.shared_expert_gate",
)


def describe_experts(config: Mapping[str, Any], names: ExpertNames, per_token: int, **said: Any) -> Experts:
    """A mixture by the entries that most families have, but for what the family has `said` of itself.

    Args:
      config: `config.json`.
      names: of its parts.
      per_token: how many experts a token goes through, where config.json is silent.
      said: fields of `Experts`.
    """
    key = next((key for key in EXPERT_COUNTS if key in config), EXPERT_COUNTS[0])
    experts = Experts(
        names,
        number=integer(config, key),
        per_token=integer(config, "num_experts_per_tok", per_token),
        balance=number(config, "router_aux_loss_coef") if config.get("router_aux_loss_coef") else 0.0,
        **said,
    )
    if experts.per_token > experts.number:
        raise wrong("num_experts_per_tok", experts.per_token, f"at most {key}, which is {experts.number}")
    return experts


def qwen_sparse(config: Mapping[str, Any]) -> tuple[bool, ...]:
    """Every n-th layer has experts, but for those that are listed."""
    step, listed = integer(config, "decoder_sparse_step", 1), config.get("mlp_only_layers") or []
    if not isinstance(listed, list) or not all(map(is_integer, listed)):
        raise wrong("mlp_only_layers", listed, "a list of layers' numbers")
    return tuple((layer + 1) % step == 0 and layer not in listed for layer in range(read_layers(config)))


def names_for(names: Names, sparse: Sequence[bool]) -> Names:
    """Names without those of a dense feed-forward network where every layer has experts."""
    return replace(names, gate=None, up=None, down=None) if all(sparse) else names


def eps_of(config: Mapping[str, Any]) -> Norm:
    return Norm(centred=False, eps=number(config, "rms_norm_eps", 1e-5))


def mixtral(config: Mapping[str, Any]) -> ModelConfig:
    width, sparse = integer(config, "intermediate_size"), (True,) * read_layers(config)
    base = describe(
        config,
        names_for(NAMES, sparse),
        num_kv_heads=read_kv_heads(config, 8),
        norm=eps_of(config),
        windows=window_everywhere(config, None),
        experts=describe_experts(config, MIXTRAL_EXPERTS, 2, width=width),
        sparse=sparse,
    )
    return replace(base, ropes=(read_rope(config, base.head_dim, theta=1e6),))


def qwen2_moe(config: Mapping[str, Any]) -> ModelConfig:
    """A shared expert beside the others, weighed by a sigmoid of its own."""
    first, windowed = integer(config, "max_window_layers", 28, least=0), flag(config, "use_sliding_window")
    kinds = layer_kinds(config, read_layers(config), lambda layer: windowed and layer % 2 == 0 and layer < first)
    return describe(
        config,
        names_for(NAMES, qwen_sparse(config)),
        num_kv_heads=read_kv_heads(config, 16),
        qkv_bias=flag(config, "qkv_bias", True),
        windows=windows_of(kinds, integer_or_none(config, "sliding_window", 4096) if windowed else None),
        experts=describe_experts(
            config,
            QWEN2_EXPERTS,
            4,
            width=integer(config, "moe_intermediate_size", 1408),
            shared_width=integer(config, "shared_expert_intermediate_size", 5632),
            normalised=flag(config, "norm_topk_prob"),
        ),
        sparse=qwen_sparse(config),
    )


def qwen3_moe(config: Mapping[str, Any]) -> ModelConfig:
    bias = flag(config, "attention_bias")
    heads, hidden = integer(config, "num_attention_heads"), integer(config, "hidden_size")
    return describe(
        config,
        names_for(WITH_HEAD_NORMS, qwen_sparse(config)),
        num_kv_heads=read_kv_heads(config, 4),
        head_dim=read_head_dim(config, hidden, heads),
        qk_norm="head",
        qkv_bias=bias,
        output_bias=bias,
        windows=window_everywhere(config, 4096 if flag(config, "use_sliding_window") else None),
        experts=describe_experts(
            config,
            NUMBERED,
            8,
            width=integer(config, "moe_intermediate_size", 768),
            normalised=flag(config, "norm_topk_prob"),
        ),
        sparse=qwen_sparse(config),
    )


def olmoe(config: Mapping[str, Any]) -> ModelConfig:
    """OLMo 2's norms of all heads together in OLMo 1's places; queries and keys are cut off behind them."""
    bias, clip = flag(config, "attention_bias"), config.get("clip_qkv")
    sparse = (True,) * read_layers(config)
    return describe(
        config,
        names_for(WITH_HEAD_NORMS, sparse),
        norm=eps_of(config),
        qk_norm="all",
        qkv_bias=bias,
        output_bias=bias,
        qkv_clip=None if clip is None else number(config, "clip_qkv"),
        experts=describe_experts(
            config, NUMBERED, 8, width=integer(config, "intermediate_size"), normalised=flag(config, "norm_topk_prob")
        ),
        sparse=sparse,
    )


def granite_moe(config: Mapping[str, Any]) -> ModelConfig:
    """Experts all in one tensor, scored by a softmax over the chosen ones."""
    base, sparse = granite(config), (True,) * read_layers(config)
    return replace(
        base,
        names=names_for(base.names, sparse),
        experts=describe_experts(config, GRANITE_EXPERTS, 2, width=base.intermediate_size),
        sparse=sparse,
    )


MIXTRAL = Family("mixtral", "Mixtral 8x7B and 8x22B", mixtral)
QWEN2_MOE = Family("qwen2_moe", "Qwen 1.5 MoE and Qwen 2 57B-A14B", qwen2_moe)
QWEN3_MOE = Family("qwen3_moe", "Qwen 3 30B-A3B and 235B-A22B", qwen3_moe)
OLMOE = Family("olmoe", "OLMoE", olmoe)
GRANITE_MOE = Family("granitemoe", "Granite 3 1B-A400M and 3B-A800M", granite_moe)
