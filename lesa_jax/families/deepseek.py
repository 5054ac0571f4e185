"""DeepSeek V2 and V3: latent attention, dense layers first, experts in groups, and shared ones beside them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families.entries import flag, integer, integer_or_none, number, wrong
from lesa_jax.families.family import Family
from lesa_jax.families.llama import NAMES
from lesa_jax.families.mixtures import NUMBERED, describe_experts, names_for
from lesa_jax.families.model import Experts, Latent, ModelConfig
from lesa_jax.families.reading import describe, read_layers
from lesa_jax.families.rotation import growth_of_scores, read_rope, rope_entry

LATENT_NAMES = replace(NAMES, query=None, key=None, value=None)
V2_EXPERTS = replace(
    NUMBERED,
    shared_gate="mlp.shared_experts.gate_proj",
    shared_up="mlp.shared_experts.up_proj",
    shared_down="mlp.shared_experts.down_proj",
)
V3_EXPERTS = replace(V2_EXPERTS, selection_bias="mlp.gate.e_score_correction_bias")


def describe_latent(config: Mapping[str, Any]) -> Latent:
    rank = integer_or_none(config, "q_lora_rank", 1536)
    return Latent(
        query="self_attn.q_proj" if rank is None else "self_attn.q_b_proj",
        query_down=None if rank is None else "self_attn.q_a_proj",
        query_norm=None if rank is None else "self_attn.q_a_layernorm",
        query_rank=rank,
        key_value_down="self_attn.kv_a_proj_with_mqa",
        key_value_norm="self_attn.kv_a_layernorm",
        key_value="self_attn.kv_b_proj",
        key_value_rank=integer(config, "kv_lora_rank", 512),
        plain=integer(config, "qk_nope_head_dim", 128),
        rotated=integer(config, "qk_rope_head_dim", 64),
        value=integer(config, "v_head_dim", 128),
    )


def deepseek(config: Mapping[str, Any], experts: Experts, dense: int, interleaved: bool) -> ModelConfig:
    """What both have in common; `dense` is the number of first layers without experts."""
    latent, layers = describe_latent(config), read_layers(config)
    width = latent.plain + latent.rotated
    if latent.value > width:
        raise wrong("v_head_dim", latent.value, f"at most {width}, the width of a head's query")
    bias = flag(config, "attention_bias")
    first = integer(config, "first_k_dense_replace", dense, least=0)
    if flag(config, "mlp_bias"):
        raise InputError("config.json: mlp_bias is not implemented for experts; no published model has it")
    sparse = tuple(layer >= first for layer in range(layers))
    return describe(
        config,
        names_for(LATENT_NAMES, sparse),
        num_kv_heads=integer(config, "num_attention_heads"),
        head_dim=width,
        ropes=(read_rope(config, latent.rotated),),
        interleaved=interleaved,
        qkv_bias=bias,
        output_bias=bias,
        attention_scale=growth_of_scores(rope_entry(config)) * width**-0.5,
        latent=latent,
        experts=experts,
        sparse=sparse,
    )


def groups_of(config: Mapping[str, Any], number: int, groups: int | None, kept: int | None) -> dict[str, int]:
    """In how many groups the experts lie, and from how many a token chooses; `groups` and `kept` where it is silent."""
    found = integer(config, "n_group", groups), integer(config, "topk_group", kept)
    if number % found[0]:
        raise wrong("n_group", found[0], f"a divisor of n_routed_experts, which is {number}")
    if found[1] > found[0]:
        raise wrong("topk_group", found[1], f"at most n_group, which is {found[0]}")
    return {"groups": found[0], "kept_groups": found[1]}


def deepseek_v2(config: Mapping[str, Any]) -> ModelConfig:
    method, number_of = config.get("topk_method", "greedy"), integer(config, "n_routed_experts", 64)
    if method not in ("greedy", "group_limited_greedy"):
        raise InputError(
            f"config.json: topk_method {method!r} is not implemented; supported: greedy, group_limited_greedy"
        )
    check_scoring(config, "softmax")
    if config.get("norm_topk_prob"):
        raise InputError("config.json: norm_topk_prob is true, which transformers does not heed for deepseek_v2")
    width = integer(config, "moe_intermediate_size", 1407)
    experts = describe_experts(
        config,
        V2_EXPERTS,
        0,
        width=width,
        shared_width=width * integer(config, "n_shared_experts", 2),
        normalised=False,
        scale=number(config, "routed_scaling_factor", 1.0),
        **(groups_of(config, number_of, None, None) if method == "group_limited_greedy" else {}),
    )
    return deepseek(config, experts, dense=0, interleaved=True)


def deepseek_v3(config: Mapping[str, Any]) -> ModelConfig:
    """Sigmoids, and a bias that has a say in who is chosen only; a group counts by its two best."""
    check_scoring(config, "sigmoid")
    if config.get("topk_method", "noaux_tc") != "noaux_tc":
        raise InputError(f"config.json: topk_method {config['topk_method']!r} is not implemented; supported: noaux_tc")
    width = integer(config, "moe_intermediate_size", 2048)
    experts = describe_experts(
        config,
        V3_EXPERTS,
        8,
        width=width,
        shared_width=width * integer(config, "n_shared_experts", 1),
        scoring="sigmoid",
        normalised=flag(config, "norm_topk_prob", True),
        scale=number(config, "routed_scaling_factor", 2.5),
        group_score="two",
        **groups_of(config, integer(config, "n_routed_experts", 256), 8, 4),
    )
    return deepseek(config, experts, dense=3, interleaved=flag(config, "rope_interleave", True))


def check_scoring(config: Mapping[str, Any], expected: str) -> None:
    """Refuses routing by other scores than the family's."""
    scoring = config.get("scoring_func", expected)
    if scoring != expected:
        raise InputError(f"config.json: scoring_func {scoring!r} is not implemented; supported: {expected}")


DEEPSEEK_V2 = Family("deepseek_v2", "DeepSeek V2, V2-Lite and Coder V2", deepseek_v2)
DEEPSEEK_V3 = Family("deepseek_v3", "DeepSeek V3, V3.1 and R1; Moonlight", deepseek_v3)
