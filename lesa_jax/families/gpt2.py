"""The families with learned positions: GPT-2, whose linear layers are transformers' Conv1D and lie as [in, out], and
OPT; and the first GPT, which cannot be silenced."""

from collections.abc import Mapping
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families.entries import MOST_LAYERS, flag, integer, integer_or_none, number
from lesa_jax.families.family import Family
from lesa_jax.families.model import ModelConfig, Names, Norm
from lesa_jax.families.reading import all_biases, describe, read_activation, split_evenly

CONV1D = frozenset({"c_attn", "c_proj", "c_fc"})
GPT2_NAMES = Names(
    embedding="transformer.wte",
    positions="transformer.wpe",
    final_norm="transformer.ln_f",
    head="lm_head",
    layers="transformer.h",
    attention_norm="ln_1",
    qkv="attn.c_attn",
    attention_output="attn.c_proj",
    feed_forward_norm="ln_2",
    up="mlp.c_fc",
    down="mlp.c_proj",
)
OPT_NAMES = Names(
    embedding="model.decoder.embed_tokens",
    positions="model.decoder.embed_positions",
    final_norm="model.decoder.final_layer_norm",
    head="lm_head",
    layers="model.decoder.layers",
    attention_norm="self_attn_layer_norm",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_output="self_attn.out_proj",
    feed_forward_norm="final_layer_norm",
    up="fc1",
    down="fc2",
)
PLAIN = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}


def gpt2(config: Mapping[str, Any]) -> ModelConfig:
    for key, plain in PLAIN.items():
        if flag(config, key, plain) != plain:
            raise InputError(f"config.json: {key} {not plain} is not implemented; such a gpt2 is not run here")
    hidden, heads = integer(config, "n_embd"), integer(config, "n_head")
    return describe(
        config,
        GPT2_NAMES,
        num_layers=integer(config, "n_layer", most=MOST_LAYERS),
        hidden_size=hidden,
        intermediate_size=integer_or_none(config, "n_inner") or 4 * hidden,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=split_evenly(hidden, heads),
        max_position_embeddings=integer(config, "n_positions", 1024),
        norm=Norm(centred=True, eps=number(config, "layer_norm_epsilon", 1e-5), bias=True),
        tied=flag(config, "tie_word_embeddings", True),
        ropes=(),
        activation=read_activation(config, "activation_function", "gelu_new"),
        transposed=True,
        **all_biases(True),
    )


def opt(config: Mapping[str, Any]) -> ModelConfig:
    """Its table of positions begins two rows late."""
    hidden, heads = integer(config, "hidden_size"), integer(config, "num_attention_heads")
    if not flag(config, "do_layer_norm_before", True) or flag(config, "_remove_final_layer_norm"):
        raise InputError(
            "config.json: do_layer_norm_before false (as in opt-350m) is not implemented; such a model is not run here"
        )
    if integer_or_none(config, "word_embed_proj_dim", hidden) not in (None, hidden):
        raise InputError("config.json: word_embed_proj_dim other than hidden_size is not implemented")
    affine, bias = flag(config, "layer_norm_elementwise_affine", True), flag(config, "enable_bias", True)
    return describe(
        config,
        OPT_NAMES,
        intermediate_size=integer(config, "ffn_dim"),
        num_kv_heads=heads,
        head_dim=split_evenly(hidden, heads),
        norm=Norm(centred=True, eps=1e-5, weight=affine, bias=affine),
        tied=flag(config, "tie_word_embeddings", True),
        ropes=(),
        activation=read_activation(config, "activation_function", "relu"),
        position_offset=2,
        **all_biases(bias),
    )


GPT2 = Family("gpt2", "GPT-2, DistilGPT-2", gpt2, transposed=CONV1D)
OPT = Family("opt", "OPT but 350M", opt)
OPENAI_GPT = Family("openai-gpt", "GPT", transposed=CONV1D, post_norm=True)
