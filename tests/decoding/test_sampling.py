"""How tokens are drawn, against the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import TopPLogitsWarper

from lesa_jax.base.errors import InputError
from lesa_jax.decoding.sampling import LIKELIEST, Sampling, choose, nucleus


def keys(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), count)


def test_without_temperature_the_likeliest_token_comes():
    logits = jnp.array([[0.0, 3.0, 1.0], [2.0, -1.0, 0.0]])
    np.testing.assert_array_equal(choose(logits, keys(2), LIKELIEST), [1, 0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_their_probability_says(temperature):
    logits, draws = jnp.array([1.0, 0.0, -1.0, 0.5]), 20_000
    chosen = choose(jnp.broadcast_to(logits, (draws, 4)), keys(draws), Sampling(temperature))
    counts = np.bincount(np.asarray(chosen), minlength=4) / draws
    np.testing.assert_allclose(counts, jax.nn.softmax(logits / temperature), atol=0.015)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.97])
def test_the_nucleus_is_that_of_transformers(top_p):
    logits = np.random.default_rng(0).standard_normal((8, 50)).astype(np.float32) * 3
    theirs = TopPLogitsWarper(top_p)(None, torch.tensor(logits))  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(nucleus(jnp.asarray(logits), top_p), torch.isfinite(theirs).numpy())


def test_only_the_nucleus_is_drawn_from():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    chosen = choose(jnp.broadcast_to(logits, (2000, 4)), keys(2000), Sampling(1.0, 0.75))
    assert set(np.asarray(chosen).tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("temperature", "top_p", "line"),
    [
        (-1.0, 1.0, "--temperature -1.0: expected 0"),
        (float("nan"), 1.0, "--temperature nan"),
        (float("inf"), 1.0, "--temperature inf"),
        (1.0, 0.0, "--top-p 0.0: expected a probability"),
        (1.0, 1.5, "--top-p 1.5"),
        (1.0, float("nan"), "--top-p nan"),
    ],
)
def test_what_is_no_way_to_draw_is_refused(temperature, top_p, line):
    with pytest.raises(InputError, match=line):
        Sampling(temperature, top_p)
