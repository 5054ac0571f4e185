"""The frontier of learning and forgetting: a curve for each method, and who learns most at equal forgetting."""

import math
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from lesa_jax.comparison.frontier import OPERATIONS, SHORT, WHOLE, Spot, at_most, unbeaten
from lesa_jax.comparison.page import page
from lesa_jax.comparison.pictures import draw_forgetting
from lesa_jax.comparison.result import Outcome, Point, ShortRun
from lesa_jax.comparison.statistics import Statistics
from lesa_jax.comparison.verdict import verdict
from tests.support.comparisons import Walk, grown, statistics

KNOWN = 3.0


def spot(learned: float, retained: float, flops: float = 1.0) -> Spot:
    return Spot(0, learned, retained, flops, 1e-3, 0.1)


def test_a_curve_is_what_no_other_beats_in_both():
    spots = [spot(2.0, 3.5), spot(2.2, 3.2), spot(2.3, 3.3), spot(3.0, 3.0), spot(3.1, 3.0), spot(3.2, 3.1)]
    assert unbeaten(spots) == (spots[0], spots[1], spots[3], spots[4])
    assert unbeaten(spots[::-1]) == unbeaten(spots)


def test_a_curve_is_read_where_it_forgets_so_much():
    curve = (spot(2.0, 3.6, 10.0), spot(2.4, 3.2, 20.0), spot(3.0, 3.0, 30.0))
    found = at_most("x", curve, 3.3)
    assert found == ("x", pytest.approx(2.3), pytest.approx(17.5), curve[:2])
    assert at_most("x", curve, 3.2) == ("x", 2.4, 20.0, curve[1:2])
    assert at_most("x", curve, 9.0) == ("x", 2.0, 10.0, curve[:1])
    assert at_most("x", curve, 2.9) is None
    for limit in (3.05, 3.15, 3.25, 3.45):  # as numpy reads it
        x, y = [one.retained for one in curve[::-1]], [one.learned for one in curve[::-1]]
        read = at_most("x", curve, limit)
        assert read is not None
        assert read.learned == pytest.approx(np.interp(limit, x, y))


def trained(method: str, share: float, end: tuple[float, float], cost: float = 10.0, **more) -> Outcome:
    """A row at a rate of 1e-3 that goes straight to its end in 100 tokens."""
    points = (Point(0, 0.0, 0.0, 4.0, KNOWN), Point(100, 100 * cost, 1.0, *end))
    return grown(method, curves=(points,), replay=share, learning_rate=1e-3, **more)


def swept(*ends: tuple[float, float, float]) -> tuple[ShortRun, ...]:
    return tuple(ShortRun(rate, loss, 10, 1.0, 5.0, retained) for rate, loss, retained in ends)


TRAINED_BASE = replace(trained("base", 0.0, (2.5, 3.4)), placement="-")
ROWS = (
    replace(trained("base", 0.1, (2.6, 3.2)), placement="-"),
    trained("llama_pro", 0.0, (2.3, 3.6), cost=20.0, sweep=swept((1e-3, 3.0, 3.2), (1e-2, 2.8, 3.5))),
    trained("llama_pro", 0.1, (2.4, 3.2), cost=20.0, sweep=swept((1e-3, 3.1, 3.1), (1e-2, 3.2, 3.3))),
    trained("solar", 0.0, (2.2, 3.9)),
)


def found(*rows: Outcome) -> Statistics:
    return statistics(*rows, base=TRAINED_BASE)


def test_rows_that_differ_by_rate_and_replay_are_one_curve():
    whole, operations, short = found(*ROWS).forgetting.frontiers
    assert [one.title for one in (whole, operations, short)] == [WHOLE, OPERATIONS, SHORT]
    assert {name: [one.label for one in spots] for name, spots in whole.methods.items()} == {
        "base": ["0.001, 0 % replay", "0.001, 10 % replay"],
        "llama_pro": ["0.001, 0 % replay", "0.001, 10 % replay"],
        "solar": ["0.001, 0 % replay"],
    }
    assert [(one.learned, one.retained) for one in whole.best] == [(2.2, 3.9), (2.3, 3.6), (2.4, 3.2), (2.6, 3.2)]
    assert [one.label for one in short.methods["llama_pro"]] == [
        "0.01, 0 % replay", "0.001, 0 % replay", "0.001, 10 % replay", "0.01, 10 % replay",
    ]  # fmt: skip
    assert [(one.learned, one.retained) for one in short.best] == [(2.8, 3.5), (3.0, 3.2), (3.1, 3.1)]
    assert {one.flops for one in short.best} == {50.0}


def test_at_equal_operations_a_dear_row_is_read_half_way():
    operations = found(*ROWS).forgetting.frontiers[1]
    assert {one.flops for spots in operations.methods.values() for one in spots} == {1000.0}
    pro = operations.methods["llama_pro"]
    assert [(one.learned, one.retained) for one in pro] == [pytest.approx((3.15, 3.3)), pytest.approx((3.2, 3.1))]


def test_equal_forgetting_holds_methods_against_base():
    whole = found(*ROWS).forgetting.frontiers[0]
    best, second = whole.equals  # solar forgets more in any case
    assert (best.method, second.method) == ("llama_pro", "base")
    assert best.learned == pytest.approx(2.35)
    assert best.flops == 2000.0
    assert second.learned == 2.5
    text = verdict(found(*ROWS))
    assert (
        "At no more forgetting than base (ends of whole runs) llama_pro, between 0.001, 0 % replay and 0.001, 10 % "
        f"replay learns most: {math.exp(2.35):.2f} in 2e+03 FLOP" in text
    )
    assert f"where base has {math.exp(2.5):.2f} in 1e+03 FLOP." in text
    assert "At no more forgetting than base (at equal operations) nothing learns more than it." in text
    assert "(ends of short runs)" not in text  # base has none


def test_a_row_that_learns_most_may_do_so_by_chance():
    lower = trained("llama_pro", 0.0, (2.49, 3.3))
    text = verdict(found(lower))
    assert "(ends of whole runs) llama_pro at 0.001, 0 % replay learns most" in text
    assert "12.18 in 1e+03 FLOP (which may be chance)." in text


def test_methods_at_several_places_are_told_apart():
    rows = [replace(row, placement=place) for row in ROWS[1:3] for place in ("top", "even")]
    names = [*found(*rows).forgetting.frontiers[0].methods]
    assert names == ["base", "llama_pro (top)", "llama_pro (even)"]


def test_pictures_and_page_have_a_panel_for_each_frontier_with_labelled_points(tmp_path):
    draw_forgetting(found(*ROWS), tmp_path / "three.png")
    assert imread(tmp_path / "three.png").shape[:2] == (650, 520 + 4 * 480)
    walk = Walk(page(found(*ROWS)))
    for title in ("Ends of whole runs", "At equal operations", "Ends of short runs"):
        assert title in walk.text
    assert walk.text.count("llama_pro: 0.001, 10 % replay") == 3
    assert "Ringed: on the frontier of all methods." in walk.text
    best = [one for frontier in found(*ROWS).forgetting.frontiers for one in frontier.best]
    assert [value for name, value in walk.attributes if name == "class"].count("ring") == len(best)
