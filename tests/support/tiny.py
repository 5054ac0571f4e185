"""Random checkpoints of a few thousand parameters, as transformers itself writes them.

There is one for each family of `lesa_jax.families`; tests/families keeps that so. Tests over families run over these.
"""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
import transformers as hf

from lesa_jax.families.family import Family
from lesa_jax.families.table import find_family
from tests.support.openelm import OpenELMConfig

COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA_LIKE = COMMON | {"intermediate_size": 48, "num_key_value_heads": 2}

# Latent attention, and experts in groups.
GROUPED = LLAMA_LIKE | {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 12,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 4,
    "topk_group": 2,
}
T5_LIKE: dict[str, Any] = {
    "d_model": 32,
    "d_ff": 48,
    "num_layers": 4,
    "num_decoder_layers": 5,
    "num_heads": 4,
    "d_kv": 12,
    "vocab_size": 64,
    "decoder_start_token_id": 0,
}
# Layers of three sizes, the last of them four in a row: what is predicted or averaged needs like neighbours.
OPENELM_LIKE: dict[str, Any] = {
    "model_dim": 32,
    "num_transformer_layers": 6,
    "head_dim": 8,
    "num_gqa_groups": 2,
    "num_query_heads": [2, 4, 6, 6, 6, 6],
    "num_kv_heads": [1, 2, 3, 3, 3, 3],
    "ffn_multipliers": [1.0, 3.0, 1.5, 1.5, 1.5, 1.5],
    "ffn_dim_divisor": 8,
    "qkv_multipliers": [0.5, 1.0, 1.5, 1.5, 1.5, 1.5],
    "normalize_qk_projections": True,
    "share_input_output_layers": True,
    "activation_fn_name": "swish",
    "max_context_length": 128,
    "vocab_size": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MIXED = ["full_attention", "sliding_attention"] * 3

CONFIGS: dict[str, Any] = {
    "llama": lambda: hf.LlamaConfig(**LLAMA_LIKE, tie_word_embeddings=False),
    "llama_tied": lambda: hf.LlamaConfig(**LLAMA_LIKE, tie_word_embeddings=True),
    "mistral": lambda: hf.MistralConfig(**LLAMA_LIKE, sliding_window=8),
    "qwen2": lambda: hf.Qwen2Config(**LLAMA_LIKE, use_sliding_window=True, max_window_layers=3, sliding_window=8),
    "qwen3": lambda: hf.Qwen3Config(**LLAMA_LIKE, head_dim=8, tie_word_embeddings=True),
    "ministral": lambda: hf.MinistralConfig(**LLAMA_LIKE, head_dim=8, sliding_window=8, layer_types=MIXED),
    "seed_oss": lambda: hf.SeedOssConfig(**LLAMA_LIKE, head_dim=8, attention_out_bias=True),
    "arcee": lambda: hf.ArceeConfig(**LLAMA_LIKE, mlp_bias=True),
    "granite": lambda: hf.GraniteConfig(
        **LLAMA_LIKE,
        embedding_multiplier=3.0,
        attention_multiplier=0.25,
        residual_multiplier=0.5,
        logits_scaling=2.0,
        attention_bias=True,
        mlp_bias=True,
    ),
    "gemma": lambda: hf.GemmaConfig(**LLAMA_LIKE, head_dim=16),
    "gemma2": lambda: hf.Gemma2Config(
        **LLAMA_LIKE,
        head_dim=8,
        sliding_window=8,
        query_pre_attn_scalar=12,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    "gemma3": lambda: hf.Gemma3TextConfig(**LLAMA_LIKE, head_dim=8, sliding_window=8, sliding_window_pattern=3),
    "smollm3": lambda: hf.SmolLM3Config(**LLAMA_LIKE),
    "olmo": lambda: hf.OlmoConfig(**LLAMA_LIKE, clip_qkv=0.3),
    "olmo2": lambda: hf.Olmo2Config(**LLAMA_LIKE),
    "olmo3": lambda: hf.Olmo3Config(**LLAMA_LIKE, sliding_window=8),
    "mixtral": lambda: hf.MixtralConfig(**LLAMA_LIKE, num_local_experts=12, num_experts_per_tok=2),
    "qwen2_moe": lambda: hf.Qwen2MoeConfig(
        **LLAMA_LIKE,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=24,
    ),
    "qwen3_moe": lambda: hf.Qwen3MoeConfig(
        **LLAMA_LIKE, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, mlp_only_layers=[0]
    ),
    "olmoe": lambda: hf.OlmoeConfig(**LLAMA_LIKE, num_experts=4, num_experts_per_tok=2, clip_qkv=0.3),
    "granitemoe": lambda: hf.GraniteMoeConfig(
        **LLAMA_LIKE,
        num_local_experts=4,
        num_experts_per_tok=2,
        embedding_multiplier=3.0,
        attention_multiplier=0.25,
        residual_multiplier=0.5,
        logits_scaling=2.0,
    ),
    "deepseek_v2": lambda: hf.DeepseekV2Config(
        **GROUPED, n_shared_experts=2, topk_method="group_limited_greedy", first_k_dense_replace=1
    ),
    "deepseek_v3": lambda: hf.DeepseekV3Config(**GROUPED, n_shared_experts=1, first_k_dense_replace=2),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**COMMON, intermediate_size=48),
    "gpt2": lambda: hf.GPT2Config(
        n_embd=32, n_layer=6, n_head=4, vocab_size=64, n_positions=128, bos_token_id=1, eos_token_id=2
    ),
    "openai_gpt": lambda: hf.OpenAIGPTConfig(n_embd=32, n_layer=6, n_head=4, vocab_size=64, n_positions=128),
    "phi": lambda: hf.PhiConfig(**LLAMA_LIKE),
    "phi3": lambda: hf.Phi3Config(**LLAMA_LIKE, sliding_window=8, rope_parameters={"partial_rotary_factor": 0.5}),
    "cohere": lambda: hf.CohereConfig(**LLAMA_LIKE, use_qk_norm=True, logit_scale=0.5),
    "cohere2": lambda: hf.Cohere2Config(**LLAMA_LIKE, sliding_window=8, layer_types=MIXED, logit_scale=0.5),
    "glm": lambda: hf.GlmConfig(**LLAMA_LIKE, head_dim=8),
    "glm4": lambda: hf.Glm4Config(**LLAMA_LIKE, head_dim=8),
    "stablelm": lambda: hf.StableLmConfig(**LLAMA_LIKE, use_qkv_bias=True),
    "starcoder2": lambda: hf.Starcoder2Config(**LLAMA_LIKE, sliding_window=8),
    "falcon": lambda: hf.FalconConfig(hidden_size=32, num_hidden_layers=6, num_attention_heads=4, vocab_size=64),
    "opt": lambda: hf.OPTConfig(
        hidden_size=32, ffn_dim=48, num_hidden_layers=6, num_attention_heads=4, vocab_size=64, word_embed_proj_dim=32
    ),
    "openelm": lambda: OpenELMConfig(**OPENELM_LIKE),
    "t5": lambda: hf.T5Config(**T5_LIKE),
    "t5_gated": lambda: hf.T5Config(**T5_LIKE, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "mt5": lambda: hf.MT5Config(**T5_LIKE),
    "bart": lambda: hf.BartConfig(
        d_model=32,
        encoder_layers=4,
        decoder_layers=5,
        encoder_attention_heads=4,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=40,
        vocab_size=64,
        max_position_embeddings=128,
        scale_embedding=True,
        decoder_start_token_id=2,
    ),
}
ENCODER_DECODERS = ("t5", "t5_gated", "mt5", "bart")
DECODERS = sorted(CONFIGS.keys() - set(ENCODER_DECODERS))


def family_of(name: str) -> Family:
    return find_family({"model_type": CONFIGS[name]().model_type})


# What has a forward pass here; what a silenced layer leaves unchanged.
RUNNING = [name for name in DECODERS if family_of(name).read]
SILENCEABLE = [name for name in DECODERS if not family_of(name).post_norm]


def save(folder: Path, family: str, dtype: torch.dtype = torch.float32, **save_options: Any) -> Path:
    """Writes a random checkpoint; biases and norms are random too, so that a test sees when one is forgotten."""
    torch.manual_seed(0)
    make = hf.AutoModelForSeq2SeqLM if family in ENCODER_DECODERS else hf.AutoModelForCausalLM
    model: Any = make.from_config(CONFIGS[family]())
    if family == "t5_gated":  # transformers ties it until it is loaded from a file with a head
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    with torch.no_grad():
        for tensor in (*model.parameters(), *stored_buffers(model)):
            tensor.add_(torch.randn_like(tensor) * 0.05)
    model.to(dtype).save_pretrained(folder, **save_options)
    return folder


def stored_buffers(model: Any) -> list[torch.Tensor]:
    """What a checkpoint holds beside parameters, such as the bias that DeepSeek chooses experts with."""
    stored = model.state_dict().keys()
    return [buffer for name, buffer in model.named_buffers() if name in stored and buffer.is_floating_point()]


@cache
def tiny(family: str) -> Path:
    """The family's checkpoint, written once per test run; do not change it."""
    return save(Path(mkdtemp(prefix=f"tiny-{family}-")), family)


def torch_logits(folder: Path, tokens: list[list[int]]) -> torch.Tensor:
    """Logits of transformers/torch in float32, shape [B, T, V]."""
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits


def torch_pair_logits(folder: Path, source: torch.Tensor, counted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The same of an encoder-decoder, whose decoder reads `target`; `counted` is 0 where the source is padding."""
    make = hf.AutoModelForSeq2SeqLM
    model: Any = make.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(input_ids=source, attention_mask=counted, decoder_input_ids=target).logits
