"""Plans: every published placement, to the layer."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesa_jax.errors import InputError
from lesa_jax.plan import PRESETS, Plan, Slot, make_plan

METHODS = st.sampled_from(sorted(PRESETS))


def test_lesa_fills_the_top_gaps_of_llama_3_8b():
    assert make_plan(32, "lesa", 48).gaps == tuple(range(15, 31))


def test_lesa_fills_gaps_7_to_14_of_16():
    assert make_plan(16, "lesa").gaps == tuple(range(7, 15))


def test_llama_pro_32_to_40_has_the_published_ids():
    assert make_plan(32, "llama_pro", 40).new_layers == (4, 9, 14, 19, 24, 29, 34, 39)


def test_solar_32_to_48_is_two_overlapping_copies():
    assert [slot.layer for slot in make_plan(32, "solar", 48).slots] == [*range(24), *range(8, 32)]


def test_solar_gives_an_odd_depth_the_longer_first_copy():
    assert [slot.layer for slot in make_plan(4, "solar", 5).slots] == [0, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("placement", "gaps"),
    [("top", (4, 5, 6)), ("bottom", (0, 1, 2)), ("middle", (2, 3, 4)), ("even", (1, 3, 5))],
)
def test_placements(placement, gaps):
    assert make_plan(8, "lesa", 11, placement=placement).gaps == gaps


@given(st.integers(3, 80), st.data(), METHODS, st.sampled_from([None, "top", "even", "middle", "bottom"]))
def test_every_plan_keeps_the_originals_in_order(depth, data, method, placement):
    if method == "solar":
        placement = None
    target = data.draw(st.integers(depth + 1, 2 * depth - 1))
    plan = make_plan(depth, method, target, placement=placement)
    assert plan.layers == target
    assert [slot.layer for slot in plan.slots if not slot.new] == list(range(depth))
    assert sorted(plan.gather()) == list(range(target))
    assert len(plan.new_layers) == len(plan.gaps) == target - depth
    assert Plan.from_json(plan.to_json()) == plan
    if method != "solar":
        assert len(set(plan.gaps)) == len(plan.gaps)
        below = [plan.slots[position - 1] for position in plan.new_layers]
        assert below == [Slot(gap) for gap in plan.gaps]


@given(st.integers(3, 60), st.data())
def test_even_gaps_are_spread_symmetrically(depth, data):
    count = data.draw(st.integers(1, depth - 1))
    gaps = make_plan(depth, "lesa", depth + count, placement="even").gaps
    steps = {b - a for a, b in itertools.pairwise(gaps)}
    assert not steps or max(steps) - min(steps) <= 1
    assert abs(gaps[0] - (depth - 2 - gaps[-1])) <= 1


def test_explicit_gaps():
    assert str(make_plan(6, "duplicate", gaps=[4, 1])) == "0-1 +1 2-4 +4 5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 6}, "has 6 layers already"),
        ({"layers": 5}, "has 6 layers already"),
        ({"layers": 12}, "at most 11"),
        ({"layers": 13, "method": "llama_pro"}, "at most 12"),
        ({"layers": 13, "method": "solar"}, "at most 12"),
        ({"gaps": [5]}, "has 0-4"),
        ({"gaps": [1, 1]}, "twice"),
        ({"gaps": []}, "empty"),
        ({"gaps": [1], "layers": 7}, "leave out --layers"),
        ({"gaps": [1], "method": "solar"}, "no --gaps"),
        ({"placement": "top", "method": "solar"}, "no --placement"),
    ],
)
def test_impossible_plans_say_what_is_possible(arguments, message):
    with pytest.raises(InputError, match=message):
        make_plan(6, **arguments)


def test_lesa_needs_three_layers():
    with pytest.raises(InputError, match="at least 3 layers"):
        make_plan(2, "lesa", 3)


def test_a_plan_without_all_originals_is_an_error():
    with pytest.raises(ValueError, match="in order"):
        Plan(2, (Slot(1), Slot(0)))
