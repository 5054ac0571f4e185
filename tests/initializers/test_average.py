"""Averages of neighbours, and the frame that other closed-form initialisers share with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.initializers.average import average, average_scaled
from lesa_jax.initializers.gaps import for_each_gap

KEY = jax.random.key(0)


def layers(count: int = 5, out: int = 24, fan_in: int = 16) -> np.ndarray:
    """Independent matrices, each of another norm."""
    w = np.random.default_rng(0).standard_normal((count, out, fan_in), np.float32)
    return w * np.arange(1, count + 1, dtype=np.float32)[:, None, None]


def norms(w) -> np.ndarray:
    return np.linalg.norm(np.asarray(w, np.float64), axis=(1, 2))


def test_one_new_layer_is_the_mean_of_its_neighbours():
    w = layers()
    new = average(w, (0, 3), KEY)
    assert new.dtype == jnp.float32
    np.testing.assert_allclose(new, [(w[0] + w[1]) / 2, (w[3] + w[4]) / 2], rtol=1e-6, atol=1e-6)


def test_three_new_layers_in_a_gap_rise_in_quarters():
    w = layers()
    new = average(w, (1, 2, 2, 2), KEY)
    expected = [(w[1] + w[2]) / 2, *((1 - t) * w[2] + t * w[3] for t in (0.25, 0.5, 0.75))]
    np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gaps", [(0,), (0, 0), (0, 0, 0, 0, 0, 0)])
def test_average_of_equal_layers_is_the_layer(gaps):
    w = np.repeat(layers(1), 2, axis=0)
    for new in average(w, gaps, KEY):
        np.testing.assert_array_equal(new, w[0])
    np.testing.assert_allclose(average_scaled(w, gaps, KEY), np.repeat(w[:1], len(gaps), axis=0), rtol=1e-6)


def test_above_the_last_layer_both_neighbours_are_the_last():
    w = layers()
    np.testing.assert_array_equal(average(w, (4, 4), KEY), [w[4], w[4]])
    np.testing.assert_array_equal(average(w[:1], (0,), KEY), w[:1])


def test_scaled_average_has_the_direction_of_the_average_and_the_norm_of_the_neighbours():
    w = layers()
    gaps, t = (0, 2, 2, 2), np.array([0.5, 0.25, 0.5, 0.75])
    plain, scaled = np.asarray(average(w, gaps, KEY)), np.asarray(average_scaled(w, gaps, KEY))
    below, above = norms(w)[[0, 2, 2, 2]], norms(w)[[1, 3, 3, 3]]
    np.testing.assert_allclose(norms(scaled), (1 - t) * below + t * above, rtol=1e-6)
    np.testing.assert_allclose(
        scaled / plain, np.broadcast_to((norms(scaled) / norms(plain))[:, None, None], w[:4].shape), rtol=1e-5
    )
    assert np.all(norms(plain) < 0.9 * norms(scaled))


def test_neighbours_that_cancel_give_zero_not_nan():
    w = layers(1)
    np.testing.assert_array_equal(average_scaled(np.concatenate([w, -w]), (0,), KEY), np.zeros_like(w))


@pytest.mark.parametrize("initialiser", [average, average_scaled])
def test_half_precision_is_averaged_in_float32(initialiser):
    w = layers().astype(jnp.bfloat16)
    expected = initialiser(w.astype(np.float32), (1, 1, 4), KEY)
    for half in (w, jnp.asarray(w)):
        new = initialiser(half, (1, 1, 4), KEY)
        assert new.dtype == jnp.float32
        np.testing.assert_allclose(new, expected, rtol=1e-6)  # sums may run in another order


def test_only_neighbours_of_new_layers_are_read():
    w = layers(6)
    w[[0, 3, 5]] = np.nan

    class Watched(np.ndarray):
        taken: list = []  # noqa: RUF012

        def __getitem__(self, index):
            self.taken.append(np.asarray(index).tolist())
            return np.asarray(super().__getitem__(index))

    assert np.all(np.isfinite(average(w.view(Watched), (1, 1), KEY)))
    assert Watched.taken == [[1, 2]]


def lower_neighbour(below, above, t, key):
    del above, t, key
    return below


def test_any_function_of_neighbours_runs_in_the_order_of_the_gaps():
    w = layers()
    np.testing.assert_array_equal(for_each_gap(lower_neighbour, w, (3, 0, 4, 0), KEY), w[[3, 0, 4, 0]])


def test_no_gaps_no_layers():
    assert average(layers(), (), KEY).shape == (0, 24, 16)


@pytest.mark.parametrize("gap", [-1, 5])
def test_impossible_gaps(gap):
    with pytest.raises(InputError, match=r"with 5 layers, gaps go from 0 to 4"):
        average(layers(), (gap,), KEY)
