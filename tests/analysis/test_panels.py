"""Charts of an analysis: single values that would flatten all else are named, not drawn."""

import numpy as np

from lesa_jax.analysis.panels import Line, Panel


def test_a_value_far_from_all_others_lies_outside_and_is_named():
    usual = np.linspace(0.1, 0.4, 15).tolist()
    panel = Panel("Added", "layer", (Line("by the layer", 1, range(16), [98.41, *usual]),))
    low, high = panel.upright
    assert low < 0.1
    assert 0.4 < high < 0.5
    assert panel.beyond == "Outside: by the layer (98.4 at 0)."


def test_lines_at_different_levels_are_all_drawn():
    """Be one of them far from a dozen others."""
    low = [Line(f"line {i}", i, range(8), np.linspace(0.1, 0.2, 8).tolist()) for i in range(12)]
    panel = Panel("Many", "layer", (*low, Line("other", 12, range(8), np.linspace(5.0, 5.1, 8).tolist())))
    assert panel.beyond == ""
    assert panel.upright[0] < 0.1
    assert panel.upright[1] > 5.1


def test_a_flat_line_has_a_chart():
    panel = Panel("Flat", "layer", (Line("one", 1, range(3), [2.0] * 3),))
    assert panel.upright[0] < 2.0 < panel.upright[1]
    assert panel.beyond == ""
