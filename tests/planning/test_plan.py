"""Plans: every published placement, to the layer."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesa_jax.base.errors import InputError
from lesa_jax.planning.methods import METHODS
from lesa_jax.planning.placement import make_plan
from lesa_jax.planning.plan import Plan, Slot, fractions

NAMES = st.sampled_from(sorted(METHODS))
STACKING = ("solar", "g_stack", "interpolate", "msg", "lemon")


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
    [
        ("top", (4, 5, 6)),
        ("bottom", (0, 1, 2)),
        ("middle", (2, 3, 4)),
        ("even", (1, 3, 5)),
        ("ends", (0, 5, 6)),
    ],
)
def test_placements(placement, gaps):
    assert make_plan(8, "lesa", 11, placement=placement).gaps == gaps


@given(st.integers(3, 80), st.data(), NAMES, st.sampled_from([None, "top", "even", "middle", "bottom", "ends"]))
def test_every_plan_keeps_the_originals_in_order(depth, data, method, placement):
    if method in STACKING:
        placement = None
    target = data.draw(st.integers(depth + 1, 2 * depth if method == "solar" else 5 * depth))
    plan = make_plan(depth, method, target, placement=placement)
    assert plan.layers == target
    assert [slot.layer for slot in plan.slots if not slot.new] == list(range(depth))
    assert sorted(plan.gather()) == list(range(target))
    assert len(plan.new_layers) == len(plan.gaps) == target - depth
    assert Plan.from_json(plan.to_json()) == plan
    if method not in STACKING:
        counts = [plan.gaps.count(gap) for gap in range(depth)]
        assert max(counts) - min(counts[: depth - 1]) <= 1  # the place above the last layer may stay empty
        below = [plan.slots[position - 1] for position in plan.new_layers]
        assert all(slot.layer == gap for slot, gap in zip(below, plan.gaps, strict=True))


def test_g_stack_is_the_stack_again():
    assert [slot.layer for slot in make_plan(6, "g_stack", 24).slots] == [j % 6 for j in range(24)]
    assert make_plan(6, "g_stack", 8).new_layers == (6, 7)


@pytest.mark.parametrize("target", [5, 6, 9, 16])
def test_interpolation_repeats_in_place(target):
    layers = [slot.layer for slot in make_plan(4, "interpolate", target).slots]
    assert layers == [j * 4 // target for j in range(target)]


@pytest.mark.parametrize("depth", [7, 16, 28, 32])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_tli_injects_after_every_k_layers(depth, k):
    plan = make_plan(depth, "tli", every=k)
    assert plan.layers == depth + depth // k
    order = []
    for i in range(depth):
        order.append(Slot(i))
        if (i + 1) % k == 0:
            order.append(Slot(i, new=True))
    assert plan.slots == tuple(order)


def test_tli_finds_its_groups_from_the_depth():
    assert make_plan(32, "tli", 48) == make_plan(32, "tli", every=2)
    assert make_plan(28, "tli_zero", 37) == make_plan(28, "tli", every=3)
    assert len(make_plan(16, "tli", 22).new_layers) == 6  # no K gives 6 of 16: spread evenly


def test_several_layers_share_a_gap_when_there_are_more_than_gaps():
    assert make_plan(4, "lesa", 11).gaps == (0, 0, 1, 1, 2, 2, 2)
    assert make_plan(4, "lesa", gaps=[1, 1, 0]).gaps == (0, 1, 1)
    assert str(make_plan(4, "average", gaps=[1, 1])) == "0-1 +1 +1 2-3"


def test_identity_and_random_controls_stand_where_lesa_does():
    for control in ("identity", "identity_next", "random", "random_lowrank", "shuffled", "lesa_raw"):
        assert make_plan(16, control) == make_plan(16, "lesa")


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
        ({"layers": 10**9}, "too many"),
        ({"method": "lessa"}, "no method lessa: did you mean lesa.*Known are .*llama_pro"),
        ({"method": "qqq"}, "Known are lesa, "),
        ({"layers": 13, "method": "solar"}, "at most 12"),
        ({"gaps": [5]}, "has 0-4; the nearest is 4"),
        ({"gaps": []}, "empty"),
        ({"gaps": [1], "layers": 7}, "leave out --layers"),
        ({"gaps": [1], "method": "solar"}, "no --gaps"),
        ({"placement": "top", "method": "solar"}, "no --placement"),
        ({"every": 2}, "--every belongs to --method tli"),
        ({"every": 7, "method": "tli"}, "groups of 1 to 6"),
        ({"placement": "top", "method": "g_stack"}, "no --placement"),
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


def test_fractions_divide_each_gap_evenly():
    assert fractions((3,)) == (0.5,)
    assert fractions((0, 2, 2, 2, 4, 4)) == (1 / 2, 1 / 4, 2 / 4, 3 / 4, 1 / 3, 2 / 3)
    assert fractions(()) == ()
