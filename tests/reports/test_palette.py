"""Colours and dashes."""

from lesa_jax.reports.palette import DARK, DASHES, PALETTE, style


def test_all_positions_look_different_until_all_are_used():
    count = len(PALETTE) * len(DASHES)
    assert len({style(position) for position in range(1, count + 1)}) == count
    assert style(count + 1) == style(1)


def test_every_colour_has_one_for_dark_paper():
    assert len(DARK) == len(PALETTE) == len({*DARK, *PALETTE}) // 2
