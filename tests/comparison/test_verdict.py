"""The sentences about a comparison."""

import re
from dataclasses import replace

from lesa_jax.comparison.statistics import summarise
from lesa_jax.comparison.verdict import summary, verdict
from tests.support.comparisons import BASE, BASE_LOSS, curve, grown, statistics, trained


def three(method, mean, sd):
    return grown(method, initial=(mean - sd, mean, mean + sd))


def test_it_says_what_is_close():
    text = verdict(statistics(three("a", 44.0, 1.0), three("b", 44.9, 0.1), three("c", 46.0, 0.1), seeds=(0, 1, 2)))
    assert "a starts lowest, at perplexity 44.00 +- 1.00 (base: 40.00); none starts below base" in text
    assert "b is within one standard deviation of the lowest" in text
    assert "c" not in re.findall(r"\b[a-c]\b", text)
    assert "b starts below base" in verdict(statistics(grown("b", initial=(39.0,))))
    assert "a and b start lowest" in verdict(statistics(grown("a", initial=(40.0,)), grown("b", initial=(40.00001,))))


def test_it_names_the_lowest_ends():
    text = verdict(summarise(trained()))
    assert "After 200 tokens, lesa is lowest" in text
    assert "1 of 2 grown models ends at or below base's initial loss" in text
    uneven = statistics(grown(curves=(curve([4.0, 3.0]),)), grown("b", curves=(curve([4.0, 3.0, 2.0]),)))
    assert "different numbers of tokens" in verdict(uneven)


def test_base_may_be_trained_too():
    lesa = grown(curves=(curve([BASE_LOSS + 0.1, BASE_LOSS - 0.1]),))
    base = replace(BASE, curves=(curve([BASE_LOSS, BASE_LOSS - 0.3]),))
    assert "base is lowest" in verdict(statistics(lesa, base=base))
    worse = replace(base, curves=(curve([BASE_LOSS, BASE_LOSS - 0.01]),))
    assert "; base, trained too, ends at 39.60" in verdict(statistics(lesa, base=worse))


def test_it_says_what_is_missing():
    assert "No grown model was measured" in verdict(statistics())
    assert "one seed" in verdict(statistics(grown()))
    assert "one seed" not in verdict(summarise(trained()))
    failed = grown("solar", "stacked", (), error="out of memory")
    assert "1 of 3 rows failed" in verdict(statistics(failed, grown()))


def test_the_summary_says_whether_something_was_trained():
    untrained = statistics(grown(), train_data=None, train_tokens=None, trained=None)
    assert summary(untrained).endswith("seed 0; nothing was trained.")
    assert summary(summarise(trained())).endswith("seeds 0, 1, 2; trained: new layers, on 200 tokens of train.txt.")
