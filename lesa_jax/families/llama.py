"""Llama and the families that are Llama but for a few switches."""

from lesa_jax.families.family import Decoder, Family, Names

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

LLAMA = Family("llama", Decoder(NAMES))
MISTRAL = Family(
    "mistral", Decoder(NAMES, default_kv_heads=8, qkv_bias=False, windows="all_layers", default_window=4096)
)
QWEN2 = Family("qwen2", Decoder(NAMES, default_kv_heads=32, qkv_bias=True, windows="layer_types", default_window=4096))
