"""Which learning rates are tried, and which one is taken."""

import math

import pytest

from lesa_jax.comparison.rates import best, is_swept, next_rate, short_steps
from lesa_jax.comparison.result import ShortRun
from lesa_jax.comparison.settings import CompareSettings
from tests.support.settings import nest


def settings(learning_rate: float | str) -> CompareSettings:
    return nest(CompareSettings, train_data="x.txt", train_tokens="1M", learning_rate=learning_rate)


def tried(losses: dict[float, float | None]) -> list[ShortRun]:
    return [ShortRun(rate, loss, 100, 1.0, 5e6) for rate, loss in losses.items()]


def follow(learning_rate: float | str, loss_at) -> list[float]:
    """The rates in the order in which they are tried, where each ends at the loss that `loss_at` says."""
    runs: list[ShortRun] = []
    while (rate := next_rate(settings(learning_rate), runs)) is not None:
        runs += tried({rate: loss_at(rate)})
        assert len(runs) < 20
    return [run.learning_rate for run in runs]


def test_a_best_rate_inside_ends_the_sweep():
    assert follow("sweep", lambda rate: abs(rate - 2e-4)) == [5e-5, 2e-4, 8e-4]


def test_a_sweep_goes_on_beyond_the_end_that_is_best():
    def away_from(least):
        return lambda rate: abs(math.log(rate / least))

    assert follow("sweep", away_from(3.2e-3)) == pytest.approx([5e-5, 2e-4, 8e-4, 3.2e-3, 1.28e-2])
    assert follow("sweep", away_from(1.25e-5)) == pytest.approx([5e-5, 2e-4, 8e-4, 1.25e-5, 3.125e-6])


def test_a_sweep_has_limits():
    assert max(follow("sweep", lambda rate: -math.log(rate))) == pytest.approx(1.28e-2)
    assert min(follow("sweep", math.log)) == pytest.approx(3.125e-6)


def test_a_sweep_does_not_go_on_for_a_trifle():
    flat = {5e-5: 3.0, 2e-4: 3.0005, 8e-4: 3.1}
    assert follow("sweep", flat.__getitem__) == [5e-5, 2e-4, 8e-4]
    assert follow("sweep", (flat | {2e-4: 3.002, 1.25e-5: 2.9995}).__getitem__) == [5e-5, 2e-4, 8e-4, 1.25e-5]
    assert follow("sweep", (flat | {5e-5: None, 2e-4: None, 8e-4: 3.0, 3.2e-3: 4.0}).__getitem__)[3] == 3.2e-3


def test_where_all_rates_diverge_lower_ones_are_tried():
    assert follow("sweep", lambda rate: None) == pytest.approx([5e-5, 2e-4, 8e-4, 1.25e-5, 3.125e-6])
    assert best(tried({1e-3: None})) is None


def test_named_rates_are_tried_and_no_others():
    assert follow("8e-4, 1e-4", lambda rate: -rate) == [1e-4, 8e-4]


def test_one_rate_is_no_sweep():
    assert not is_swept(settings(1e-3))
    assert not is_swept(settings("1e-3"))
    assert not is_swept(CompareSettings())
    assert not is_swept(nest(CompareSettings, learning_rate="sweep"))  # nothing is trained
    assert is_swept(settings("sweep"))
    assert is_swept(settings("1e-3,1e-2"))


def test_the_best_is_the_lowest_that_did_not_diverge_and_of_equals_the_lower_rate():
    found = best(tried({8e-4: 3.0, 2e-4: 3.0, 5e-5: 3.5, 3.2e-3: None}))
    assert found is not None
    assert found.learning_rate == 2e-4


def test_short_runs_are_a_fifth_but_never_a_handful_of_steps():
    assert [short_steps(steps) for steps in (1000, 100, 30, 10, 3)] == [200, 20, 10, 10, 3]
