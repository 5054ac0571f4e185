"""Rotary frequencies and angles against those of transformers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers as hf
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from lesa_jax.families.model import ModelConfig, Rope
from lesa_jax.models.config import read_config
from lesa_jax.models.rope import inverse_frequencies, rotation

SCALINGS: dict[str, dict[str, Any]] = {
    "plain": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 2.5},
    "linear by three": {"rope_type": "linear", "factor": 3.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "llama3.2": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
    "yarn of DeepSeek": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 0.707,
        "truncate": False,
    },
}


def both(theta: float, head_dim: int, scaling: dict[str, Any]) -> tuple[ModelConfig, LlamaRotaryEmbedding]:
    rope = {"rope_theta": theta, **scaling}
    config = hf.LlamaConfig(hidden_size=2 * head_dim, num_attention_heads=2, rope_parameters=rope)
    return read_config(config.to_dict()), LlamaRotaryEmbedding(config)


def rope_of(config: ModelConfig) -> Rope:
    (rope,) = config.ropes
    assert rope is not None
    return rope


# Of published models, and some that are none.
THETAS = (1e4, 1e5, 1.5e5, 2e5, 5e5, 1e6, 5e6, 8e6, 1e7, 10000.5, 123456.789)


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX2", reason="torch's last bit is another one here")
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("theta", THETAS)
def test_inverse_frequencies_are_those_of_transformers_to_the_bit(theta, scaling):
    for head_dim in (32, 48, 64, 80, 96, 112, 128, 160, 192, 256):
        config, theirs = both(theta, head_dim, SCALINGS[scaling])
        ours = inverse_frequencies(rope_of(config))
        np.testing.assert_array_equal(ours, theirs.inv_freq.numpy(), err_msg=str(head_dim))


@pytest.mark.parametrize("theta", [1e4, 5e5, 1e6, 8e6])
@pytest.mark.parametrize("head_dim", [96, 128])
def test_far_positions_turn_as_in_transformers(theta, head_dim):
    config, theirs = both(theta, head_dim, SCALINGS["plain"])
    positions = np.r_[0:50, 4096, 8191, 32767, 65536, 100_000, 131_071, 999_999]
    expected = theirs(torch.zeros(()), torch.tensor(positions)[None])
    turn = jax.jit(lambda positions: rotation(positions, rope_of(config)))
    for ours, wanted in zip(turn(jnp.asarray(positions)[None]), expected, strict=True):
        np.testing.assert_allclose(ours, wanted.numpy()[..., : head_dim // 2], atol=3e-7)


LONG = {
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0 + 0.1 * i for i in range(32)],
        "long_factor": [1.0 + 0.5 * i for i in range(32)],
        "original_max_position_embeddings": 64,
    },
    "longrope, its own magnitude": {
        "rope_type": "longrope",
        "short_factor": [1.0 + 0.1 * i for i in range(32)],
        "long_factor": [1.0 + 0.5 * i for i in range(32)],
        "original_max_position_embeddings": 64,
        "attention_factor": 1.3,
    },
}


@pytest.mark.parametrize("tokens", [63, 64, 65, 128, 129, 500])
@pytest.mark.parametrize("scaling", [*LONG, *SCALINGS])
def test_longer_sequences_turn_as_in_transformers(scaling, tokens):
    """Each time in a fresh module of theirs, which remembers the longest sequence that it has seen."""
    rope = {"rope_theta": 1e4, **(LONG | SCALINGS)[scaling]}
    config = hf.LlamaConfig(hidden_size=128, num_attention_heads=2, max_position_embeddings=128, rope_parameters=rope)
    positions = np.arange(tokens)[None]
    expected = LlamaRotaryEmbedding(config)(torch.zeros(()), torch.tensor(positions))
    ours = jax.jit(lambda positions: rotation(positions, rope_of(read_config(config.to_dict()))))(positions)
    for mine, wanted in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine, wanted.numpy()[..., :32], atol=3e-7 * tokens)  # an angle's rounding
