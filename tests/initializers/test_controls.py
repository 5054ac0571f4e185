"""Layers of noise: their norm, their rank, and where their numbers come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.initializers.controls import random, random_lowrank

KEY = jax.random.key(0)
BOTH = pytest.mark.parametrize("initialiser", [random, random_lowrank])


def layers(count: int = 5, out: int = 24, fan_in: int = 16) -> np.ndarray:
    """Independent matrices, each of another norm."""
    w = np.random.default_rng(0).standard_normal((count, out, fan_in), np.float32)
    return w * np.arange(1, count + 1, dtype=np.float32)[:, None, None]


def norms(w) -> np.ndarray:
    return np.linalg.norm(np.asarray(w, np.float64), axis=(1, 2))


@BOTH
def test_norm_is_the_mean_of_the_neighbours(initialiser):
    w = layers()
    new = initialiser(w, (0, 2, 2, 2, 4), KEY)
    n = norms(w)
    expected = [(n[0] + n[1]) / 2, *((1 - t) * n[2] + t * n[3] for t in (0.25, 0.5, 0.75)), n[4]]
    np.testing.assert_allclose(norms(new), expected, rtol=1e-6)


def test_norm_of_many_entries_keeps_its_digits():
    w = np.random.default_rng(0).standard_normal((2, 1500, 2000), np.float32)
    np.testing.assert_allclose(norms(random(w, (0,), KEY)), [norms(w).mean()], rtol=1e-6)


def test_entries_are_independent_gaussians():
    new = np.asarray(random(layers(2, 300, 400), (0,), KEY)[0], np.float64)
    z = new / new.std()
    for moment, expected in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert abs(np.mean(z**moment) - expected) < 0.05
    for neighbour in (z[:, 1:] * z[:, :-1], z[1:] * z[:-1]):
        assert abs(neighbour.mean()) < 0.015  # five standard errors
    assert np.linalg.matrix_rank(new) == 300


@pytest.mark.parametrize(("shape", "rank"), [((270, 300), 257), ((300, 270), 257), ((24, 300), 24), ((300, 16), 16)])
def test_low_rank(shape, rank):
    [new] = random_lowrank(layers(2, *shape), (0,), KEY)
    s = np.linalg.svd(np.asarray(new, np.float64), compute_uv=False)
    assert np.sum(s > 1e-5 * s[0]) == rank


@BOTH
def test_same_key_same_bytes_other_key_other_weights(initialiser):
    first, again, other = (np.asarray(initialiser(layers(), (0, 2), jax.random.key(seed))) for seed in (0, 0, 1))
    assert first.tobytes() == again.tobytes()
    assert not np.any(np.isclose(first, other).all(axis=(1, 2)))


@BOTH
def test_every_new_layer_has_its_own_numbers(initialiser):
    w = np.repeat(layers(1), 4, axis=0)
    new = np.asarray(initialiser(w, (0, 0, 1, 2, 3), KEY)).reshape(5, -1)
    correlation = np.corrcoef(new) - np.eye(5)
    assert np.max(np.abs(correlation)) < 0.3  # 384 numbers: six standard errors


@BOTH
def test_half_precision_weights(initialiser):
    w = layers().astype(jnp.bfloat16)
    new = initialiser(jnp.asarray(w), (1, 3), KEY)
    assert new.dtype == jnp.float32
    np.testing.assert_allclose(new, initialiser(w.astype(np.float32), (1, 3), KEY), rtol=1e-6)


@BOTH
def test_zero_neighbours_give_zero(initialiser):
    assert not np.any(initialiser(np.zeros((2, 8, 6), np.float32), (0,), KEY))


@BOTH
def test_impossible_gap(initialiser):
    with pytest.raises(InputError, match="gaps go from 0 to 4"):
        initialiser(layers(), (5,), KEY)
