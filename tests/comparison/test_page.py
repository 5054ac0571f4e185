"""report.html: safe, whole, and with what it must say."""

import re

import pytest

from lesa_jax.comparison.page import page
from lesa_jax.comparison.result import ShortRun
from lesa_jax.comparison.statistics import summarise
from tests.support.comparisons import HOSTILE, Walk, curve, grown, statistics, trained


def test_hostile_strings():
    attack = grown(HOSTILE, HOSTILE, curves=(curve([4.0, 3.0]),), error=HOSTILE)
    more = dict.fromkeys(("model", "text", "protocol", "train_data", "trained", "command"), HOSTILE)
    walk = Walk(page(statistics(attack, grown(HOSTILE, "_top"), versions={HOSTILE: HOSTILE}, **more)))
    assert walk.tags.count("script") == 1
    assert walk.tags.count("table") == 1
    assert HOSTILE in walk.text


@pytest.mark.parametrize("found", [summarise(trained()), statistics(grown()), statistics()])
def test_page_is_whole_and_needs_nothing(found):
    text = page(found)
    walk = Walk(text)
    assert not {name for name, _ in walk.attributes} & {"src", "href", "xlink:href", "style", "onclick"}
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert {"html", "head", "title", "body", "table", "svg"} <= set(walk.tags)
    ids = [value for name, value in walk.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_what_went_wrong():
    failed = grown("solar", "stacked", (), error="out of memory")
    assert "What went wrong" in page(statistics(failed, grown()))
    assert "What went wrong" not in page(summarise(trained()))


def test_one_seed_has_no_deviation():
    text = page(statistics(grown(curves=(curve([4.0, 3.0]),))))
    assert "±" not in text
    assert "polygon" not in text
    assert "±" in page(summarise(trained()))
    assert "polygon" in page(summarise(trained()))


def test_training_is_shown_in_three_panels_with_names():
    text = page(summarise(trained()))
    for title in ("Against tokens", "Against operations", "Against wall-clock time"):
        assert text.count(f"<figcaption>{title}</figcaption>") == 1
    assert text.count("<title>lesa</title>") == 3
    assert "base before training" in text


def test_the_command_is_there():
    assert "python -m lesa_jax.compare --seeds 2" in page(
        statistics(grown(), command="python -m lesa_jax.compare --seeds 2")
    )


def test_a_sweep_is_shown_rate_by_rate():
    sweep = tuple(ShortRun(rate, loss, 1000, 2.0, 5e6) for rate, loss in ((1e-4, 3.0), (1e-3, 2.0), (1e-2, None)))
    swept = grown(curves=(curve([4.0, 3.0]),), learning_rate=1e-3, sweep=sweep)
    text = Walk(page(statistics(swept, grown("solar", curves=(curve([4.0, 3.0]),))))).text
    assert "Learning rates" in text
    for cell in ("20.09", "7.39*", "diverged", "3K tokens, 15 GFLOP, 6.0 s"):
        assert cell in text
    assert "Learning rates" not in page(summarise(trained()))
