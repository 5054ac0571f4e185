"""Decoding from kept keys and values is the forward pass of the whole text, token for token."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers as hf

from lesa_jax.models.cached import read_next, read_texts
from lesa_jax.models.decoder import logits
from lesa_jax.models.load import load_model
from tests.support.tiny import LLAMA_LIKE, RUNNING, tiny

FEW = ["llama", "gemma2", "deepseek_v3", "gpt2", "qwen2", "openelm"]  # windows, caps, latent, experts, positions, sizes
STRETCHED: dict[str, Any] = {
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.1, 1.3, 1.4],
        "long_factor": [1.0, 2.0, 3.0, 4.0],
        "original_max_position_embeddings": 16,
    },
}


def check_cached(folder: Path) -> None:
    """Texts of 5, 11 and 3 tokens, gone on with to 25, 31 and 23, against the forward pass of each by itself."""
    params, config = load_model(folder)
    lengths, more = np.array([5, 11, 3]), 20
    reaches = lengths + more
    tokens = np.random.default_rng(0).integers(3, config.vocab_size, (3, 11 + more))
    with jax.default_matmul_precision("highest"):
        read = jax.jit(partial(read_texts, config=config, places=40))
        follow = jax.jit(partial(read_next, config=config))
        found, cache = read(params, tokens[:, :11], lengths, reaches)
        steps = [found]
        for at in (lengths + step for step in range(more)):
            found, cache = follow(params, tokens[np.arange(3), at], at, reaches, cache)
            steps.append(found)
        for row, (length, reach) in enumerate(zip(lengths, reaches, strict=True)):
            expected = logits(params, jnp.asarray(tokens[row : row + 1, :reach]), config)[0, length - 1 :]
            ours = jnp.stack([step[row] for step in steps])
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=3e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("family", FEW)
def test_cached_decoding_equals_the_whole_forward_pass(family):
    check_cached(tiny(family))


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(RUNNING) - {"t5", "t5_gated", "mt5", "bart"} - set(FEW)))
def test_cached_decoding_equals_the_whole_forward_pass_in_every_family(family):
    check_cached(tiny(family))


@pytest.mark.parametrize("rope", STRETCHED)
def test_positions_that_turn_otherwise_in_longer_texts_do_so(rope, tmp_path):
    """As they do in a text of its last length: all grow beyond 16 tokens on the way."""
    sizes: dict[str, Any] = LLAMA_LIKE | {"max_position_embeddings": 16, "rope_parameters": STRETCHED[rope]}
    sizes |= {"initializer_range": 0.2}  # so that attention looks somewhere
    torch.manual_seed(0)
    hf.LlamaForCausalLM(hf.LlamaConfig(**sizes)).save_pretrained(tmp_path)
    check_cached(tmp_path)


def test_what_fills_a_text_up_is_not_seen():
    params, config = load_model(tiny("llama"))
    lengths, reaches = jnp.array([4]), jnp.array([6])
    with jax.default_matmul_precision("highest"):
        first, _ = read_texts(params, jnp.array([[5, 6, 7, 8, 0, 0]]), lengths, reaches, config, 8)
        second, _ = read_texts(params, jnp.array([[5, 6, 7, 8, 9, 9]]), lengths, reaches, config, 8)
    np.testing.assert_array_equal(first, second)
