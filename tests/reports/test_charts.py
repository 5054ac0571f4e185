"""Axes, ticks and the SVG of charts."""

import math
import re

import pytest

from lesa_jax.reports.charts import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Axis,
    Dot,
    Series,
    dot_chart,
    is_logarithmic,
    legend,
    line_panel,
    linear_ticks,
    log_ticks,
    tick_texts,
)
from tests.support.comparisons import HOSTILE, Walk


def test_ticks():
    assert linear_ticks(0.0, 2.0, 5) == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert linear_ticks(3.77, 3.85, 6) == [3.78, 3.8, 3.82, 3.84]
    assert tick_texts([3.78, 3.8]) == ["3.78", "3.80"]
    assert tick_texts([50.0, 100.0]) == ["50", "100"]
    assert log_ticks(math.log(45), math.log(3000)) == [50, 100, 200, 500, 1000, 2000]
    assert len(log_ticks(math.log(2), math.log(1e30))) <= 6


def test_an_axis():
    axis = Axis(1000.0, 3000.0, "thousand", 1000.0)
    assert [axis.part(value) for value in (1000.0, 1500.0, 3000.0)] == [0.0, 0.25, 1.0]
    assert axis.ticks(4) == [(1000.0, "1.0"), (1500.0, "1.5"), (2000.0, "2.0"), (2500.0, "2.5"), (3000.0, "3.0")]


def test_axes_of_wide_ranges_are_logarithmic():
    assert not is_logarithmic([])
    assert not is_logarithmic([4.0, 40.0])
    assert is_logarithmic([4.0, 41.0])
    assert not is_logarithmic([-1.0, 41.0])


def test_a_panel_draws_lines_where_their_points_are():
    rising = Series("rising", 1, x=[0.0, 5.0, 10.0], y=[0.0, 1.0, 2.0], band=[0.0, 0.5, 0.0])
    text = line_panel("a", "Title", "what", [rising], Axis(0.0, 10.0, "layers"), Axis(0.0, 2.0), target=1.0)
    Walk(text)
    middle = ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2)
    assert f'points="{LEFT}.0,{BOTTOM}.0 {middle[0]},{middle[1]} {RIGHT}.0,{TOP}.0"' in text
    (band,) = re.findall(r'<polygon class="band" points="([^"]*)"', text)
    quarter = (BOTTOM - TOP) / 4
    assert band.split()[1] == f"{middle[0]},{middle[1] - quarter}"
    assert band.split()[4] == f"{middle[0]},{middle[1] + quarter}"
    assert f'<line class="target" x1="{LEFT}" x2="{RIGHT}" y1="{middle[1]}" y2="{middle[1]}"/>' in text
    assert ">layers</text>" in text


def test_a_panel_without_bands_and_target():
    text = line_panel("a", "", "", [Series("s", 0, [0.0], [1.0])], Axis(0.0, 1.0), Axis(0.0, 2.0))
    assert "polygon" not in text
    assert "target" not in text


def test_the_first_line_is_on_top():
    lines = [Series(name, i, [0.0], [0.0]) for i, name in enumerate(("first", "second"))]
    text = line_panel("a", "", "", lines, Axis(0.0, 1.0), Axis(0.0, 1.0))
    assert text.index("second") < text.index("first")


@pytest.mark.parametrize("ends", [(40.0, 40.0), (40.0, 50.0), (40.0, 4000.0)])
def test_dots_lie_between_the_ends(ends):
    low, high = ends
    text = dot_chart([Dot("a", low, low, high, "40.00 +- 1.00"), Dot("b", high, low, high, "", reference=True)])
    Walk(text)
    places = [float(place) for place in re.findall(r'cx="([\d.]+)%"', text)]
    assert all(0 < place < 100 for place in places)
    assert (places[0] < places[1]) == (low < high)
    assert "40.00 ± 1.00" in text
    assert text.count('class="target"') == 2  # the reference's line runs through both


def test_names_are_text():
    series = [Series(HOSTILE, 1, [0.0], [0.0])]
    for text in (
        line_panel("a", HOSTILE, HOSTILE, series, Axis(0.0, 1.0, HOSTILE), Axis(0.0, 1.0)),
        dot_chart([Dot(HOSTILE, 1.0, 1.0, 1.0, HOSTILE)]),
        legend([(1, HOSTILE)], HOSTILE),
    ):
        walk = Walk(text)
        assert "script" not in walk.tags
        assert HOSTILE in walk.text


def test_a_legend_shows_lines_as_the_panel_draws_them():
    text = legend([(0, "base"), (9, "ninth")], "start")
    assert text.index('class="curve strong"') < text.index('class="curve d1"') < text.index('class="target"')
    assert "target" not in legend([(0, "base")])
