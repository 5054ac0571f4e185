"""Layers as a few scans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesa_jax.training.segments import Segment, find_segments, merge


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(0, 40))
def test_segments_cover_the_layers_once_and_in_order(groups, prefix):
    segments = find_segments(groups, prefix)
    order = []
    for segment in segments:
        places = [segment.layers(place) for place in range(segment.width)]
        order += [layer for row in zip(*places, strict=True) for layer in row]
        for layers in places:
            assert len({groups[layer] for layer in layers}) == 1
    assert order == list(range(len(groups)))
    assert prefix >= len(groups) or prefix in {segment.start for segment in segments} | {0}


@pytest.mark.parametrize(
    ("groups", "prefix", "expected"),
    [
        ("o" * 8 + "no" * 8, 8, (Segment(0, 1, 8), Segment(8, 2, 8))),
        ("oon" * 8, 2, (Segment(0, 1, 2), Segment(2, 3, 7), Segment(23, 1, 1))),
        ("oon" * 8, 0, (Segment(0, 3, 8),)),
        ("o" * 24, 24, (Segment(0, 1, 24),)),
    ],
)
def test_usual_plans_are_a_few_scans(groups, prefix, expected):
    assert find_segments(groups, prefix) == expected


def test_merge_puts_both_trees_together():
    assert merge({"a": {"b": 1}}, {"a": {"c": 2}, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
