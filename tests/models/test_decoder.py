"""The forward pass against transformers/torch, and against itself."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers as hf

from lesa_jax import demo
from lesa_jax.families.model import Linear
from lesa_jax.models.decoder import embed, final_norm, forward, logits, make_context, run_layers
from lesa_jax.models.load import load_model
from lesa_jax.models.parts import layers_of
from tests.support import tiny
from tests.support.openelm import OpenELMConfig
from tests.support.small import small_model
from tests.support.tiny import COMMON, LLAMA_LIKE, RUNNING, torch_logits

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# Typed Any, because transformers annotates each option of its constructors.
LIKE: dict[str, Any] = LLAMA_LIKE
MULTI_HEAD: dict[str, Any] = COMMON | {"intermediate_size": 48}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.4],
    "long_factor": [1.0, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": 32,
}
MIXED = ["full_attention", "sliding_attention"] * 3

# What every family with a forward pass has in `tiny`, and what its switches can make of it.
CONFIGS: dict[str, Any] = {
    **{name: tiny.CONFIGS[name] for name in RUNNING},
    "llama_multi_head": lambda: hf.LlamaConfig(**MULTI_HEAD),
    "llama_wide_heads": lambda: hf.LlamaConfig(**LIKE, head_dim=16),
    "llama_biases": lambda: hf.LlamaConfig(**LIKE, attention_bias=True, mlp_bias=True),
    "llama_3.1": lambda: hf.LlamaConfig(**LIKE, rope_parameters=LLAMA3),
    "llama_linear": lambda: hf.LlamaConfig(
        **LIKE, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    ),
    "qwen2_full": lambda: hf.Qwen2Config(**LIKE, rms_norm_eps=1e-4),
    "qwen2_top_window": lambda: hf.Qwen2Config(**LIKE, use_sliding_window=True, sliding_window=8, max_window_layers=4),
    "qwen2_mixed_windows": lambda: hf.Qwen2Config(**LIKE, use_sliding_window=True, sliding_window=8, layer_types=MIXED),
    "mistral_full": lambda: hf.MistralConfig(**LIKE, sliding_window=None),
    "llama_dynamic": lambda: hf.LlamaConfig(
        **LIKE | {"max_position_embeddings": 32},
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    ),
    "llama_dynamic_short": lambda: hf.LlamaConfig(
        **LIKE, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    ),
    "llama_yarn": lambda: hf.LlamaConfig(
        **LIKE,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "llama_yarn_all": lambda: hf.LlamaConfig(
        **LIKE,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "beta_fast": 16,
            "beta_slow": 2,
            "mscale": 1.0,
            "mscale_all_dim": 0.7,
            "truncate": False,
        },
    ),
    "phi3_longrope": lambda: hf.Phi3Config(
        **LIKE, rope_parameters=LONG | {"rope_theta": 10000.0}, original_max_position_embeddings=32
    ),
    "phi3_longrope_short": lambda: hf.Phi3Config(
        **LIKE,
        rope_parameters=LONG | {"rope_theta": 10000.0, "original_max_position_embeddings": 64},
        original_max_position_embeddings=64,
    ),
    "gemma3_scaled": lambda: hf.Gemma3TextConfig(
        **LIKE,
        head_dim=8,
        sliding_window=8,
        sliding_window_pattern=3,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    "olmo3_yarn": lambda: hf.Olmo3Config(
        **LIKE,
        sliding_window=8,
        rope_parameters={
            "full_attention": {
                "rope_type": "yarn",
                "factor": 8.0,
                "rope_theta": 5e5,
                "original_max_position_embeddings": 32,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 5e5},
        },
    ),
    "falcon_new": lambda: hf.FalconConfig(**COMMON, num_kv_heads=2, new_decoder_architecture=True, bias=True),
    "falcon_new_one_norm": lambda: hf.FalconConfig(
        **COMMON, num_kv_heads=2, new_decoder_architecture=True, num_ln_in_parallel_attn=1
    ),
    "falcon_rw": lambda: hf.FalconConfig(**COMMON, multi_query=False, parallel_attn=False, bias=True),
    "gpt_neox_serial": lambda: hf.GPTNeoXConfig(**MULTI_HEAD, use_parallel_residual=False, attention_bias=False),
    "stablelm_parallel": lambda: hf.StableLmConfig(**LIKE, use_parallel_residual=True),
    "phi_normed": lambda: hf.PhiConfig(**LIKE, qk_layernorm=True),
    "cohere_plain": lambda: hf.CohereConfig(**LIKE, tie_word_embeddings=False, attention_bias=True, logit_scale=0.5),
    "smollm3_windows": lambda: hf.SmolLM3Config(
        **LIKE, use_sliding_window=True, sliding_window=8, no_rope_layer_interval=2
    ),
    "qwen3_biases": lambda: hf.Qwen3Config(
        **LIKE, head_dim=16, attention_bias=True, use_sliding_window=True, sliding_window=8, max_window_layers=2
    ),
    "gemma2_plain": lambda: hf.Gemma2Config(
        **LIKE,
        head_dim=8,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        layer_types=MIXED,
        sliding_window=8,
        attention_bias=True,
    ),
    "gpt2_untied": lambda: hf.GPT2Config(
        n_embd=32,
        n_layer=6,
        n_head=4,
        n_inner=40,
        vocab_size=64,
        n_positions=128,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "opt_without_biases": lambda: hf.OPTConfig(
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=6,
        num_attention_heads=4,
        vocab_size=64,
        word_embed_proj_dim=32,
        enable_bias=False,
        layer_norm_elementwise_affine=False,
    ),
    "mixtral_windows": lambda: hf.MixtralConfig(**LIKE, num_local_experts=4, sliding_window=8),
    "qwen2_moe_every_second": lambda: hf.Qwen2MoeConfig(
        **LIKE,
        num_experts=4,
        num_experts_per_tok=3,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=24,
        decoder_sparse_step=2,
        norm_topk_prob=True,
        use_sliding_window=True,
        sliding_window=8,
        max_window_layers=5,
    ),
    "qwen3_moe_windows": lambda: hf.Qwen3MoeConfig(
        **LIKE,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        mlp_only_layers=[2, 3],
        norm_topk_prob=True,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=8,
    ),
    "deepseek_v2_lite": lambda: hf.DeepseekV2Config(
        **tiny.GROUPED | {"q_lora_rank": None, "n_group": None, "topk_group": None},
        n_shared_experts=1,
        attention_bias=True,
        routed_scaling_factor=2.0,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "mscale": 0.707,
            "mscale_all_dim": 0.9,
        },
    ),
    "deepseek_v3_halves": lambda: hf.DeepseekV3Config(
        **tiny.GROUPED, first_k_dense_replace=0, rope_interleave=False, norm_topk_prob=False
    ),
    "starcoder2_plain": lambda: hf.Starcoder2Config(**LIKE, use_bias=False),
    "openelm_plain": lambda: OpenELMConfig(
        **tiny.OPENELM_LIKE
        | {"normalize_qk_projections": False, "ffn_with_glu": False, "share_input_output_layers": False}
    ),
    "openelm_normed_whole": lambda: OpenELMConfig(**tiny.OPENELM_LIKE, qk_norm="all", rope_freq_constant=100),
    "openelm_norms_scaled": lambda: OpenELMConfig(
        **tiny.OPENELM_LIKE, norm_scales=[(layer + 1) ** -0.5 for layer in range(6)]
    ),
    "openelm_all_different": lambda: OpenELMConfig(
        **tiny.OPENELM_LIKE
        | {
            "num_query_heads": [2, 4, 4, 6, 8, 10],
            "num_kv_heads": [1, 2, 2, 3, 4, 5],
            "ffn_multipliers": [0.5, 1.0, 1.3, 1.5, 2.0, 4.0],
        }
    ),
    "openelm_runs_that_overlap": lambda: OpenELMConfig(
        **tiny.OPENELM_LIKE
        | {
            "num_query_heads": [4, 4, 4, 2, 2, 4],
            "num_kv_heads": [2, 2, 2, 1, 1, 2],
            "ffn_multipliers": [1.0, 1.0, 3.0, 3.0, 1.5, 1.5],
        }
    ),
    "openelm_all_alike": lambda: OpenELMConfig(
        **tiny.OPENELM_LIKE
        | {"num_query_heads": [4] * 6, "num_kv_heads": [2] * 6, "ffn_multipliers": [1.5] * 6, "qkv_multipliers": 1.0}
    ),
    "olmo_plain": lambda: hf.OlmoConfig(**LIKE, attention_bias=True),
}


def save(folder: Path, config: Any) -> Path:
    """A random checkpoint whose biases and norms are random too, and whose logits are of order one."""
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for tensor in (*model.parameters(), *tiny.stored_buffers(model)):
            tensor.add_(torch.randn_like(tensor) * 0.2)
    model.save_pretrained(folder)
    return folder


def random_tokens(vocab: int, batch: int = 2, length: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, vocab, (batch, length)).astype(np.int32)


# In the first step what has a switch that no other has; that every family is right is seen in the second.
ALIKE = {
    "llama_tied",
    "ministral",
    "seed_oss",
    "arcee",
    "gemma",
    "olmo2",
    "cohere2",
    "glm",
    "stablelm",
    "starcoder2",
    "olmoe",
}
VARIANTS = {
    "openelm_normed_whole",
    "openelm_all_different",
    "openelm_norms_scaled",
    "openelm_runs_that_overlap",
    "deepseek_v2_lite",
    "llama_3.1",
    "llama_yarn",
    "phi3_longrope",
    "falcon_new",
    "gpt_neox_serial",
    "qwen2_mixed_windows",
}
FIRST = {*RUNNING, *VARIANTS} - ALIKE


@pytest.mark.parametrize("name", [n if n in FIRST else pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS])
def test_logits_equal_those_of_transformers(name: str, tmp_path: Path):
    folder = save(tmp_path / "model", CONFIGS[name]())
    params, config = load_model(folder)
    tokens = random_tokens(config.vocab_size)
    expected = torch_logits(folder, tokens.tolist()).numpy()
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(logits(params, jnp.asarray(tokens), config), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["demo", "books16"])
def test_logits_of_a_trained_model_equal_those_of_transformers(name: str, request: pytest.FixtureRequest):
    folder = demo.MODEL_DIRECTORY if name == "demo" else request.getfixturevalue("books16")
    params, config = load_model(folder)
    tokens = random_tokens(config.vocab_size, batch=1, length=200)
    expected = torch_logits(folder, tokens.tolist()).numpy()
    np.testing.assert_allclose(logits(params, jnp.asarray(tokens), config), expected, atol=2e-4)


def test_a_token_changes_nothing_before_itself():
    params, config = small_model()
    tokens = random_tokens(config.vocab_size)
    changed = tokens.copy()
    changed[:, 20] = (changed[:, 20] + 1) % config.vocab_size
    before, after = (np.asarray(logits(params, jnp.asarray(t), config)) for t in (tokens, changed))
    np.testing.assert_array_equal(before[:, :20], after[:, :20])
    assert np.abs(before[:, 20:] - after[:, 20:]).max(axis=(0, 2)).min() > 0


def test_two_runs_of_layers_are_one_run():
    params, config = small_model()
    tokens = jnp.asarray(random_tokens(config.vocab_size))
    positions = jnp.arange(tokens.shape[1])[None]
    turn = make_context(positions, config)
    x = embed(params, tokens, positions, config)
    for rows in (range(1), range(1, 4)):
        run = jax.tree.map(lambda leaf, rows=rows: leaf[rows.start : rows.stop], layers_of(params, config))
        x = run_layers(run, x, turn, config.of_layers(rows))
    np.testing.assert_allclose(final_norm(params, x, config), forward(params, tokens, config), atol=1e-6)


def test_bfloat16_storage_gives_what_its_float32_copy_gives():
    params, config = small_model()
    stored = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    upfront = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), stored)
    tokens = jnp.asarray(random_tokens(config.vocab_size))
    np.testing.assert_array_equal(logits(stored, tokens, config), logits(upfront, tokens, config))


def test_bfloat16_computation_stays_near_float32():
    params, config = small_model()
    tokens = jnp.asarray(random_tokens(config.vocab_size))
    exact, rough = logits(params, tokens, config), logits(params, tokens, config, jnp.bfloat16)
    assert rough.dtype == jnp.bfloat16
    assert jnp.abs(exact - rough.astype(jnp.float32)).max() < 0.05 * jnp.abs(exact).max()


def test_old_and_new_rotary_entries_mean_the_same():
    _, new = small_model(rope_parameters=LLAMA3)
    scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    _, old = small_model(rope_theta=500000.0, rope_scaling=scaling)
    assert old == new
    _, linear = small_model(rope_scaling={"type": "linear", "factor": 2.0})
    assert [rope and rope.scaling for rope in linear.ropes] == [Linear(2.0)]
