"""A budget is met within 1 %, by a profile that stays of its kind; one that cannot be met ends in one line."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lesa_jax.base.errors import InputError
from lesa_jax.profiles.budget import equal_budget, fit
from lesa_jax.profiles.named import PROFILES, Profile, layer_sizes
from lesa_jax.profiles.sizes import Shape, count_parameters

PAPER = Shape(18, 768, 64, 3, 50304, tied=False)


def total(profile, shape):
    return count_parameters(shape, layer_sizes(profile, shape))


def near(profile, shape, budget):
    return abs(total(profile, shape) - budget) <= 0.01 * budget


def kind(profile):
    """How its points stand to each other: which of neighbours is the larger."""
    return [a <= b for a, b in zip(profile.ffn, profile.ffn[1:], strict=False)]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(list(PROFILES)),
    st.integers(6, 20),
    st.sampled_from([256, 512, 768]),
    st.sampled_from([1, 3, 4]),
    st.booleans(),
    st.floats(0, 1),
)
def test_a_hundred_random_budgets_are_met(name, layers, hidden, ratio, tied, share):
    shape = Shape(layers, hidden, 64, ratio, 32000, tied, ffn_divisor=8)
    ends = [Profile(name, (low,) * len(PROFILES[name].ffn), PROFILES[name].qkv, PROFILES[name].framed)
            for low in (1.0, 6.0)]  # fmt: skip
    smallest, largest = (total(end, shape) for end in ends)
    budget = round(smallest + share * (largest - smallest) / 2)
    assume(3 * hidden * 8 * layers <= 0.02 * budget)  # all layers by one step, at most
    found = fit(PROFILES[name], shape, budget)
    assert near(found, shape, budget)
    assert kind(found) == kind(PROFILES[name])
    assert (found.name, found.qkv, found.framed) == (name, PROFILES[name].qkv, PROFILES[name].framed)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["vanilla", "framed", "reverse", "crown"]), st.integers(140_000_000, 280_000_000))
def test_random_budgets_at_the_published_size_and_divisor(name, budget):
    found = fit(PROFILES[name], PAPER, budget)
    assert near(found, PAPER, budget)
    assert kind(found) == kind(PROFILES[name])
    assert abs(min(found.ffn) - min(PROFILES[name].ffn)) <= 0.1
    if name == "crown":
        assert found.ffn[0] == found.ffn[2]


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_that_meets_the_budget_already_stays(name):
    assert fit(PROFILES[name], PAPER, total(PROFILES[name], PAPER)) == PROFILES[name]


def test_one_end_moves_and_that_is_the_wide_one():
    assert fit(PROFILES["vanilla"], PAPER, 190_000_000).ffn[0] == 1.0
    assert fit(PROFILES["reverse"], PAPER, 190_000_000).ffn[1] == 0.5
    assert fit(PROFILES["vanilla"], PAPER, 170_000_000).ffn[1] < 4 < fit(PROFILES["vanilla"], PAPER, 190_000_000).ffn[1]


@pytest.mark.parametrize("budget", [None, 200_000_000])
def test_all_five_at_an_equal_budget(budget):
    shape = Shape(18, 768, 64, 3, 50304, tied=False, ffn_divisor=32)
    found = equal_budget(shape, budget)
    assert [profile.name for profile in found] == ["isotropic", "vanilla", "framed", "reverse", "crown"]
    if budget is None:
        assert found[0] == PROFILES["isotropic"]
    assert all(near(profile, shape, budget or total(found[0], shape)) for profile in found)


def test_small_models_meet_small_budgets():
    """Of the sizes at which experiments train all five."""
    for layers, hidden, budget in ((8, 128, 2_000_000), (12, 192, 4_000_000), (12, 256, 6_000_000)):
        shape = Shape(layers, hidden, 32, 2, 4096, ffn_divisor=8)
        assert all(near(profile, shape, budget) for profile in equal_budget(shape, budget))


@pytest.mark.parametrize("budget", [1, 90_000_000, 10**12])
def test_a_budget_out_of_reach_says_what_is_within(budget):
    with pytest.raises(InputError, match="not reachable: crown with 18 layers and hidden size 768 has ") as caught:
        fit(PROFILES["crown"], PAPER, budget)
    assert str(caught.value).startswith(f"--parameters {budget:,}: ")
    assert str(caught.value).endswith("; change --layers or --hidden-size")
    smallest, largest = (int(word.rstrip(";").replace(",", "")) for word in str(caught.value).split()[-7:-4:2])
    assert not smallest <= budget <= largest
    assert near(fit(PROFILES["crown"], PAPER, smallest), PAPER, smallest)
    assert near(fit(PROFILES["crown"], PAPER, largest), PAPER, largest)


def test_a_budget_between_two_steps_says_how_to_make_them_smaller():
    with pytest.raises(InputError) as caught:
        fit(PROFILES["isotropic"], PAPER, 178_000_000)
    assert str(caught.value) == (
        "--parameters 178,000,000: not reachable within 1%: isotropic comes no nearer than 172,849,152, as widths go "
        "in steps of --ffn-divisor 256; take a smaller one"
    )
