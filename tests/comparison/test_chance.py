"""Whether a difference may be chance: tests over seeds and windows, and what is said of it."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lesa_jax.comparison import chance
from lesa_jax.comparison.chance import (
    SignTest,
    bootstrap,
    difference,
    least_p,
    may_be_chance,
    mean_interval,
    sign_test,
)
from lesa_jax.comparison.page import page
from lesa_jax.comparison.result import Outcome
from lesa_jax.comparison.table import chance_lines, markdown, records
from lesa_jax.comparison.verdict import notes, verdict
from lesa_jax.evaluation.perplexity import Window
from tests.support.comparisons import BASE, Walk, curve, grown, statistics, strict

RANDOM = np.random.default_rng(7)


def test_the_sign_test_counts_every_way_that_signs_may_fall():
    for count in (1, 2, 3, 6, 9):
        ways = [*itertools.product((-1, 1), repeat=count)]
        for lower in range(count + 1):
            uneven = sum(abs(sum(way)) >= abs(2 * lower - count) for way in ways)
            found = sign_test([-1.0] * lower + [1.0] * (count - lower))
            assert found == (lower, count, pytest.approx(uneven / len(ways)))
        assert sign_test([-0.5] * count).p == pytest.approx(least_p(count))
    assert least_p(3) == 0.25
    assert least_p(5) > 0.05 > least_p(6)
    assert sign_test([1e-7, -1e-6, 0.0]) == (0, 0, 1.0)  # rounding
    assert sign_test([1e-7, -1e-3]) == (1, 1, 1.0)


@pytest.mark.parametrize("drawn", [1 << 20, 7 * 60, 1])
def test_the_bootstrap_is_that_of_scipy_and_weighs_windows_by_their_tokens(drawn, monkeypatch):
    monkeypatch.setattr(chance, "DRAWN", drawn)
    differences, tokens = RANDOM.normal(0.01, 0.1, 60), RANDOM.integers(1, 1024, 60)

    def mean(values, weights, axis):
        return (values * weights).sum(axis) / weights.sum(axis)

    expected = stats.bootstrap(
        (differences, tokens), mean, paired=True, method="percentile", n_resamples=20000, rng=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrap(differences, tokens)
    assert found == pytest.approx([expected.low, expected.high], abs=0.15 * (expected.high - expected.low))
    assert found == bootstrap(differences, tokens)
    assert bootstrap(np.full(5, 0.25), tokens[:5]) == pytest.approx((0.25, 0.25))


def test_the_interval_of_seeds_is_students():
    values = [3.1, 3.4, 3.2, 3.35]
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((expected.low, expected.high))
    assert mean_interval(values[:2]) == mean_interval([1.0, math.nan, 2.0]) == (None, None)
    found = statistics(grown(curves=tuple(curve([4.0, value]) for value in values)), seeds=(0, 1, 2, 3))
    low, high = found.rows[1].perplexity_low, found.rows[1].perplexity_high
    assert (low, high) == pytest.approx(mean_interval([math.exp(value) for value in values]))
    assert f"| {low:.2f} to {high:.2f} |" in markdown(found)


def windows(*losses: float) -> tuple[Window, ...]:
    return tuple(Window(10 + number, loss) for number, loss in enumerate(losses))


def run(*seeds: tuple[float, ...], method: str = "lesa", **more) -> Outcome:
    """Of windows' losses for each seed; its held-out loss is their mean over tokens."""
    measured = [windows(*losses) for losses in seeds]
    ends = [np.average([w.nll for w in one], weights=[w.tokens for w in one]) if one else None for one in measured]
    curves = tuple(() if end is None else curve([4.0, float(end)]) for end in ends)
    return grown(method, curves=curves, windows=tuple(measured), **more)


LOSSES = tuple(RANDOM.normal(3.0, 1.0, 40))
LOWER = tuple(loss - 0.02 - 0.01 * RANDOM.random() for loss in LOSSES)
EITHER = tuple(loss + 0.05 * (-1) ** number for number, loss in enumerate(LOSSES))


def test_what_differs_little_between_windows_that_differ_much_is_told_from_chance():
    """Windows have a standard deviation of 1, fifty times the difference: pairs tell it, means would not."""
    found = difference(run(LOWER), run(LOSSES), "control", "identity")
    assert found is not None
    assert found.windows == (40, 40, pytest.approx(2.0**-39))
    assert found.low is not None
    assert found.high is not None
    assert -0.03 <= found.low < found.loss < found.high <= -0.02
    assert found.seeds == (1, 1, 1.0)
    assert not found.may_be_chance
    other_way = difference(run(LOSSES), run(LOWER), "control", "identity")
    assert other_way is not None
    assert (other_way.loss, other_way.windows) == (pytest.approx(-found.loss), (0, 40, pytest.approx(2.0**-39)))
    even = difference(run(EITHER), run(LOSSES), "control", "identity")
    assert even is not None
    assert even.windows == (20, 40, 1.0)
    assert even.may_be_chance


def test_seeds_are_paired_and_one_that_is_not_trained_in_both_is_left_out():
    this, other = run(LOWER, (), LOWER), run(LOSSES, LOSSES, LOSSES)
    found = difference(this, other, "control", "identity")
    assert found is not None
    assert (found.seeds.of, found.seeds.lower) == (2, 2)
    mixed = difference(run(LOWER, LOSSES, LOWER), run(LOSSES, LOWER, LOSSES), "control", "identity")
    assert mixed is not None
    assert mixed.seeds == (2, 3, 1.0)
    assert mixed.windows is not None
    assert mixed.windows.of == 40  # means over seeds: three times the text would be no more of it
    assert mixed.may_be_chance  # seeds do not agree, whatever windows say
    assert difference(run(()), run(LOSSES), "control", "identity") is None


def test_without_the_same_windows_seeds_alone_must_tell():
    ends = [curve([4.0, 3.0 + 0.1 * seed]) for seed in range(6)]
    lower = [curve([4.0, 2.99 + 0.1 * seed]) for seed in range(6)]
    for count, is_open in ((3, True), (5, True), (6, False)):
        found = difference(grown(curves=tuple(lower[:count])), grown(curves=tuple(ends[:count])), "control", "x")
        assert found is not None
        assert (found.windows, found.low, found.high, found.may_be_chance) == (None, None, None, is_open)
    other_text = difference(run(LOSSES[:5]), run(LOSSES), "control", "x")
    assert other_text is not None
    assert other_text.windows is None


def test_both_tests_have_to_agree_as_far_as_they_can():
    agreed, split = SignTest(3, 3, 0.25), SignTest(2, 3, 1.0)
    clear, unclear = SignTest(40, 40, 1e-9), SignTest(25, 40, 0.15)
    assert not may_be_chance(agreed, clear, -0.2, -0.1)
    assert may_be_chance(split, clear, -0.2, -0.1)
    assert may_be_chance(agreed, unclear, -0.2, -0.1)
    assert may_be_chance(agreed, clear, -0.2, 0.1)
    assert may_be_chance(SignTest(6, 8, 0.29), clear, -0.2, -0.1)
    assert not may_be_chance(SignTest(8, 9, 0.039), clear, -0.2, -0.1)


def test_tables_verdict_and_notes_say_it():
    thrice = run(LOSSES, LOSSES, LOSSES)
    base = replace(BASE, curves=thrice.curves, windows=thrice.windows)
    either, lower = run(EITHER, LOSSES, EITHER, method="solar"), run(LOWER, LOWER, LOWER, control=1)
    found = statistics(either, lower, base=base, seeds=(0, 1, 2))
    told = {label: [one.against for one in ones] for label, ones in zip(found.labels, found.differences, strict=True)}
    assert told == {
        "base": ["best rival"], "solar": ["trained base", "best rival"],
        "lesa": ["trained base", "control", "best rival"],
    }  # fmt: skip
    [record] = [one for one in records(found)[2]["differences"] if one["against"] == "trained base"]
    assert strict(json.dumps(record))["windows"] == {"lower": 40, "of": 40, "p": record["windows"]["p"]}
    assert record["may_be_chance"] is False
    text = verdict(found)
    below = abs(record["loss"])
    assert f"lesa ends {below:.4f} nats below base (trained base)," in text
    assert "may be chance" not in text.split("grown models end")[0]
    assert "so few can show that a difference may be chance" in " ".join(notes(found))
    assert "gives p = 0.25 at best" in " ".join(notes(found))
    lines = {line[0][0] + " " + line[1][0]: [text for text, _ in line] for line in chance_lines(found)}
    assert lines["lesa trained base: base"][4:] == ["40 of 40 (p = 1.8e-12)", "3 of 3 (p = 0.25)", "hardly"]
    assert lines["solar trained base: base"][-1] == "may be"
    assert "| method | held against | nats above it |" in markdown(found)
    assert "Is it chance?" in Walk(page(found)).text
    alone = verdict(statistics(run(EITHER), base=base))
    assert "which may be chance" in alone
    assert "With one seed nothing tells what another order of the data would have brought." in alone
