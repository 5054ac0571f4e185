"""The order of layers along a path, against all orders and the whole decomposition."""

from itertools import pairwise, permutations

import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.analysis.continuity import (
    continuity,
    distances,
    leading_coefficients,
    null_correlations,
    p_value,
    shortest_path,
    spearman,
)
from lesa_jax.initializers.lesa.svd import layer_svd


def test_the_path_is_the_shortest_of_all():
    for seed in range(5):
        distance = distances(np.random.default_rng(seed).standard_normal((7, 3)))
        lengths = [sum(distance[a, b] for a, b in pairwise(order)) for order in permutations(range(7))]
        found = shortest_path(distance)
        assert sorted(found) == list(range(7))
        assert sum(distance[a, b] for a, b in pairwise(found)) == pytest.approx(min(lengths))
    assert [len(shortest_path(distances(np.eye(n)))) for n in (1, 2, 3)] == [1, 2, 3]


def test_many_layers_on_a_curve_are_found_in_order():
    """More than exact search reaches; the control is far from it."""
    turn = np.linspace(0, 5, 64)
    points = np.stack([np.cos(turn), np.sin(turn), turn / 10], axis=1)
    found = continuity(points)
    assert found.correlation == pytest.approx(1)
    assert found.p < 1e-3
    assert found.null_95 < 0.3
    assert found.adjacent_cosine > 0.99 > found.all_cosine
    shuffled = continuity(np.random.default_rng(0).permutation(points))
    assert shuffled.correlation < found.null_95 * 2
    assert shuffled.p > 1e-3


def test_rank_correlation_and_its_null():
    assert spearman(np.arange(5)) == 1
    assert spearman(np.arange(5)[::-1]) == -1
    order = np.array([2, 0, 1, 3, 4])
    assert spearman(order) == pytest.approx(np.corrcoef(order, np.arange(5))[0, 1])
    null = null_correlations(5, 2000, 0)
    assert null.mean() == pytest.approx(0.41, abs=0.03)  # of all 120 orders
    assert p_value(1.0, null) == pytest.approx(2 / 120, abs=0.01)


def test_coefficients_are_those_of_the_whole_decomposition():
    rng = np.random.default_rng(0)
    shared = np.outer(rng.standard_normal(24), rng.standard_normal(16))
    for w in (rng.standard_normal((5, 24, 16)) + shared, rng.standard_normal((5, 2, 16))):
        stack = w.astype(np.float32)
        found, expected = leading_coefficients(stack), np.asarray(layer_svd(jnp.array(stack)).v[:, 0])
        sign = np.sign(np.sum(found * expected))
        np.testing.assert_allclose(sign * found, expected, atol=2e-4)
        assert np.sum(found**2) == pytest.approx(1, abs=1e-4)
