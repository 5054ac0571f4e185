"""What is computed of a comparison: rows, crossings, names, the axis."""

import math
from dataclasses import replace

import pytest

from lesa_jax.comparison.statistics import summarise
from tests.support.comparisons import BASE, BASE_LOSS, comparison, curve, grown, rows, statistics, trained


def test_row():
    base, lesa, solar = summarise(trained()).rows
    assert base.initial_perplexity == 40.0
    assert base.initial_over_base == 1.0
    assert base.tokens_to_base is base.perplexity is base.tokens is None
    assert lesa.initial_perplexity == pytest.approx(44.0)
    assert lesa.initial_sd == pytest.approx(0.5)
    assert lesa.initial_over_base == pytest.approx(1.1)
    ends = [40.0 * math.exp(-0.2 + noise) for noise in (-0.01, 0.0, 0.01)]
    assert lesa.perplexity == pytest.approx(sum(ends) / 3)
    assert lesa.perplexity_sd == pytest.approx(math.sqrt(sum((end - sum(ends) / 3) ** 2 for end in ends) / 2))
    assert (lesa.tokens, lesa.seeds, lesa.backward_depth, lesa.error) == (200, 3, 2, None)
    assert lesa.new_layers == (4, 5)
    assert solar.initial_sd is None
    assert solar.tokens_to_base is solar.flops_to_base is solar.seconds_to_base is None
    assert lesa.step_flops == 5e6
    assert lesa.step_cost_over_base is None


def test_crossing_is_linear_between_evaluations():
    lesa = rows(grown(curves=(curve([BASE_LOSS + 0.3, BASE_LOSS - 0.1]),)))[1]
    assert lesa.tokens_to_base == pytest.approx(75.0)
    assert lesa.flops_to_base == pytest.approx(750.0)
    assert lesa.seconds_to_base == pytest.approx(37.5)


def test_crossing_is_of_the_mean_curve():
    curves = (curve([BASE_LOSS + 0.2, BASE_LOSS]), curve([BASE_LOSS + 0.2, BASE_LOSS - 0.2]))
    assert rows(grown(curves=curves))[1].tokens_to_base == pytest.approx(100 * 0.2 / 0.3)


def test_seed_that_stopped_early():
    cut = grown(curves=(curve([4.0, 3.8, 3.7]), curve([4.0, 3.9]), ()))
    row = rows(cut, seeds=(0, 1, 2))[1]
    assert row.tokens == 100
    assert row.perplexity == pytest.approx((math.exp(3.8) + math.exp(3.9)) / 2)
    assert row.seeds == 2


def test_base_loss_of_lines_needs_a_measurement():
    lesa = grown(curves=(curve([3.0, 2.0]),))
    assert rows(lesa, protocol="line")[1].tokens_to_base is None
    measured = replace(BASE, curves=(curve([2.5]),))
    table = rows(lesa, base=measured, protocol="line")
    assert table[1].tokens_to_base == pytest.approx(50.0)
    assert table[0].tokens is None


def test_steps_are_compared_with_those_of_a_trained_base():
    base = replace(BASE, curves=(curve([BASE_LOSS, BASE_LOSS - 0.3]),), step_flops=4e6)
    table = rows(grown(step_flops=5e6), grown("solar"), base=base)
    assert [row.step_cost_over_base for row in table] == [1.0, 1.25, None]


def test_a_failed_row_measures_nothing():
    row = rows(grown("solar", "stacked", (), error="out of | memory\nat layer 3"))[1]
    assert row.error == "out of | memory\nat layer 3"
    assert row.initial_perplexity is row.perplexity is None
    assert row.seeds == 0


@pytest.mark.parametrize("bad", [math.inf, math.nan, 1e4])
def test_infinite_perplexity(bad):
    burst = grown(initial=(math.inf,), curves=(curve([4.0, 3.0, bad]), curve([4.0, 3.2, 3.0])))
    row = rows(burst, seeds=(0, 1))[1]
    assert row.initial_perplexity is row.initial_over_base is row.perplexity is None
    assert row.error is not None
    assert "perplexity before training is not finite" in row.error
    assert "loss after 200 tokens is not finite" in row.error
    assert row.tokens_to_base is not None  # it was there before it diverged


def test_one_seed_has_no_deviation():
    row = rows(grown(curves=(curve([4.0, 3.0]),)))[1]
    assert row.initial_sd is row.perplexity_sd is None


def test_starts_are_in_order_with_their_seeds():
    found = statistics(grown("a", initial=(45.0, 43.0)), grown("b", initial=()), grown("c", initial=(39.0,)))
    assert found.starts == ((2 + 1, 39.0, None, 39.0, 39.0), (0, 40.0, None, 40.0, 40.0), (1, 44.0, 2**0.5, 43.0, 45.0))
    assert found.below_base == (3,)
    assert found.lowest_start == ((3,), 39.0, None, ())


def test_names_are_told_apart():
    deep = replace(grown(), layers=8)
    found = statistics(grown(), grown(placement="even"), deep, grown("solar"))
    assert found.labels == ("base", "lesa (top, 6 layers)", "lesa (even)", "lesa (top, 8 layers)", "solar")


def test_range_shows_every_end_but_not_a_far_start():
    near = grown(curves=(curve([BASE_LOSS + 0.02, BASE_LOSS - 0.2]),))
    far = grown("far", curves=(curve([9.0, BASE_LOSS - 0.1]),))
    lost = grown("lost", curves=(curve([9.0, 9.0]),))
    low, high, above = statistics(near, far, lost).loss_range
    assert low < BASE_LOSS - 0.2
    assert BASE_LOSS + 0.02 < high < 5
    assert above == (2, 3)
    assert statistics(grown()).loss_range.above == ()


def test_axes_end_where_most_was_spent():
    found = statistics(grown(curves=(curve([4.0, 3.0]),)), grown("b", curves=(curve([4.0, 3.0, 2.0]),)))
    assert found.spent == (200.0, 2000.0, 100.0)
    assert [*found.curves] == [1, 2]


def test_what_was_not_trained_has_no_curves():
    found = summarise(comparison(grown(), base=replace(BASE, curves=(curve([BASE_LOSS]),))))
    assert not found.is_trained
    assert found.curves == {}
    assert found.lowest_end is None
    assert summarise(trained()).is_trained
