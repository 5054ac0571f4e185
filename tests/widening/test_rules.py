"""How weights are shared among copies: the parts sum to what was there, and are equal or not as the method says."""

import math

import ml_dtypes
import numpy as np
import pytest

from lesa_jax.widening.rules import find_sharing, widened

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]


def weights_of(dtype, shape=(48, 32)) -> np.ndarray:
    """Of all sizes, tiny ones and zeros among them."""
    random = np.random.default_rng(0)
    numbers = random.standard_normal(shape) * 10.0 ** random.integers(-9, 3, shape)
    numbers[:, ::7] = 0
    return numbers.astype(dtype)


def parts_of(weights, copies, method, noise_db=None) -> np.ndarray:
    """[copies, out, in], exact in float64."""
    wide = widened(weights, (1, copies), find_sharing(method, noise_db), "w", 0)
    assert wide.dtype == weights.dtype
    return np.moveaxis(wide.astype(np.float64).reshape(len(weights), copies, -1), 1, 0)


def summed(parts: np.ndarray) -> np.ndarray:
    """Their sums, rounded once."""
    return np.array([math.fsum(numbers) for numbers in parts.reshape(len(parts), -1).T]).reshape(parts.shape[1:])


@pytest.mark.parametrize("copies", [2, 3, 5, 8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_unequal_parts_sum_to_the_weights_to_the_bit(dtype, copies):
    weights = weights_of(dtype)
    parts = parts_of(weights, copies, "lemon")
    np.testing.assert_array_equal(summed(parts), weights.astype(np.float64))


@pytest.mark.parametrize("copies", [2, 3, 8])
def test_unequal_parts_are_shares_of_a_units_own(copies):
    """Each input has shares of its own, none of them 0 or all; which copy has the larger is chance."""
    weights = np.abs(weights_of(np.float64)) + 1
    shares = parts_of(weights, copies, "lemon") / weights
    np.testing.assert_allclose(shares, np.broadcast_to(shares[:, :1], shares.shape), rtol=1e-12)
    assert shares.min() > 0.01
    assert shares.max() < 0.8
    of_units = np.sort(shares[:, 0], axis=0)
    assert np.unique(np.round(of_units[-1], 6)).size == of_units.shape[1]
    assert set(np.argmax(shares[:, 0], axis=0)) == set(range(copies))
    if copies == 2:
        assert of_units[1].min() >= 0.55
        assert of_units[1].max() <= 0.75


@pytest.mark.parametrize("copies", [2, 3, 8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_parts_are_the_weights_divided(dtype, copies):
    weights = (np.random.default_rng(0).standard_normal((48, 32))).astype(dtype)
    parts = parts_of(weights, copies, "hyperclone")
    assert (parts == parts[0]).all()
    exact = weights.astype(np.float64)
    if copies in (2, 8):
        np.testing.assert_array_equal(summed(parts), exact)
    else:
        np.testing.assert_allclose(parts.sum(axis=0), exact, rtol=float(ml_dtypes.finfo(dtype).eps))


@pytest.mark.parametrize(("copies", "plain"), [(2, 0), (3, 1), (4, 0)])
def test_noise_cancels_and_is_as_loud_as_it_is_asked_to_be(copies, plain):
    weights = np.random.default_rng(0).standard_normal((200, 100)).astype(np.float32)
    parts = parts_of(weights, copies, "hyperclone", noise_db=20.0)
    np.testing.assert_allclose(parts.sum(axis=0), weights, atol=1e-6)
    noise = parts - weights / copies
    loud = [np.sqrt(np.mean(part**2)) for part in noise]
    assert sum(size < 1e-6 for size in loud) == plain
    expected = np.sqrt(np.mean(weights.astype(np.float64) ** 2)) / copies / 10
    np.testing.assert_allclose(loud[: copies - plain], expected, rtol=0.02)


def test_copies_of_outputs_have_noise_of_their_own():
    weights = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    wide = widened(weights, (2, 2), find_sharing("hyperclone", 10.0), "w", 0)
    above, below = wide[:6], wide[6:]
    np.testing.assert_allclose(above[:, :4] + above[:, 4:], weights, atol=1e-6)
    np.testing.assert_allclose(below[:, :4] + below[:, 4:], weights, atol=1e-6)
    assert np.abs(above - below).min() > 0


@pytest.mark.parametrize(("method", "noise_db"), [("lemon", None), ("hyperclone", 10.0)])
def test_random_numbers_are_the_seeds_and_the_tensors(method, noise_db):
    weights, sharing = weights_of(np.float32), find_sharing(method, noise_db)
    first, again, other, renamed = (
        widened(weights, (2, 2), sharing, name, seed) for name, seed in (("a", 1), ("a", 1), ("a", 2), ("b", 1))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != renamed).any()


def test_what_is_not_shared_is_copied_whole():
    vector = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(widened(vector, (2,), None, "v", 0), [0, 1, 2, 0, 1, 2])
    table = np.arange(4, dtype=np.int64).reshape(2, 2)
    np.testing.assert_array_equal(widened(table, (1, 2), None, "t", 0), [[0, 1, 0, 1], [2, 3, 2, 3]])
