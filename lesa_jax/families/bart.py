"""BART: its norms stand in the residual stream, behind each addition, so that none of its layers can be silenced."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lesa_jax.families.entries import MOST_LAYERS, flag, integer
from lesa_jax.families.family import Family
from lesa_jax.families.model import ModelConfig, Names, Norm
from lesa_jax.families.reading import all_biases, describe, read_activation, split_evenly
from lesa_jax.families.t5 import read_start_token

ENCODER_NAMES = Names(
    embedding="model.shared",
    embedding_norm="model.encoder.layernorm_embedding",
    positions="model.encoder.embed_positions",
    final_norm=None,
    head="lm_head",
    layers="model.encoder.layers",
    attention_norm="self_attn_layer_norm",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_output="self_attn.out_proj",
    feed_forward_norm="final_layer_norm",
    up="fc1",
    down="fc2",
)
DECODER_NAMES = replace(
    ENCODER_NAMES,
    embedding_norm="model.decoder.layernorm_embedding",
    positions="model.decoder.embed_positions",
    layers="model.decoder.layers",
    logit_bias="final_logits_bias",
    cross_norm="encoder_attn_layer_norm",
    cross_query="encoder_attn.q_proj",
    cross_key="encoder_attn.k_proj",
    cross_value="encoder_attn.v_proj",
    cross_output="encoder_attn.out_proj",
)


def bart(config: Mapping[str, Any]) -> ModelConfig:
    """Its tables of positions begin two rows late; embeddings are normed, and may be scaled."""
    hidden = integer(config, "d_model", 1024)

    def stack(names: Names, side: str, **said: Any) -> ModelConfig:
        heads = integer(config, f"{side}_attention_heads", 16)
        return describe(
            config,
            names,
            num_layers=integer(config, f"{side}_layers", 12, most=MOST_LAYERS),
            num_heads=heads,
            num_kv_heads=heads,
            head_dim=split_evenly(hidden, heads),
            hidden_size=hidden,
            intermediate_size=integer(config, f"{side}_ffn_dim", 4096),
            norm=Norm(centred=True, eps=1e-5, bias=True),
            tied=flag(config, "tie_word_embeddings", True),
            ropes=(),
            activation=read_activation(config, "activation_function", "gelu"),
            embedding_scale=hidden**0.5 if flag(config, "scale_embedding") else 1.0,
            position_offset=2,
            post_norm=True,
            **all_biases(True),
            **said,
        )

    return stack(
        DECODER_NAMES,
        "decoder",
        encoder=stack(ENCODER_NAMES, "encoder"),
        embedding_copies=("model.encoder.embed_tokens", "model.decoder.embed_tokens"),
        start_token=read_start_token(config),
    )


BART = Family("bart", "BART", bart, post_norm=True, encoder=True)
