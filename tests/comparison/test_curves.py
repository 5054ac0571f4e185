"""Mean curves and where they reach a loss."""

import pytest

from lesa_jax.comparison.curves import crossing, mean_curve, spread
from tests.support.comparisons import curve


def test_crossing_at_the_start_and_of_nothing():
    assert crossing(mean_curve([curve([2.0, 1.0])]), 2.0) == (0.0, 0.0, 0.0)
    assert crossing(mean_curve([curve([2.000001, 3.0])]), 2.0) == (0.0, 0.0, 0.0)  # a start equal but for rounding
    assert crossing(mean_curve([curve([3.0, 2.5])]), 2.0) is None
    assert crossing(mean_curve([curve([3.0, 1.0])]), None) is None
    assert crossing((), 2.0) is None


def test_a_mean_curve_ends_where_a_seed_is_not_finite():
    means = mean_curve([curve([4.0, 3.0, 2.0]), curve([4.0, 3.5, float("nan")])])
    assert [point.loss for point in means] == [4.0, 3.25]
    assert [point.sd for point in means] == pytest.approx([0.0, 0.125**0.5])
    assert [point.tokens for point in means] == [0, 100]


def test_spread():
    assert spread([]) == spread([1.0, float("inf")]) == (None, None)
    assert spread([3.0]) == (3.0, None)
    assert spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
