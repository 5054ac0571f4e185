"""The sentences about a comparison."""

import re
from dataclasses import replace

from lesa_jax.comparison.result import ShortRun
from lesa_jax.comparison.statistics import summarise
from lesa_jax.comparison.verdict import notes, summary, verdict
from tests.support.comparisons import BASE, BASE_LOSS, curve, grown, statistics, trained, trained_base


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


FALL = (curve([BASE_LOSS + 0.1, BASE_LOSS - 0.2]),)


def test_it_holds_what_was_grown_against_trained_base():
    worse = grown("solar", curves=(curve([BASE_LOSS + 0.5, BASE_LOSS + 0.1]),))
    text = verdict(statistics(grown(curves=FALL), worse, base=trained_base([0.0, -0.1])))
    assert "1 of 2 end at or below trained base at equal tokens (which may be chance), 1 at equal operations" in text
    assert "trained base" not in verdict(statistics(grown(curves=FALL)))


def test_it_holds_rows_against_their_controls():
    identity = grown("identity", curves=(curve([BASE_LOSS, BASE_LOSS - 0.1]),))
    worse = grown("solar", curves=(curve([BASE_LOSS + 0.5, BASE_LOSS]),), control=3)
    text = verdict(statistics(grown(curves=FALL, control=3), worse, identity))
    assert "Of 2 rows with a control (silenced copies there) lesa ends below it (which may be chance)." in text
    assert "Of 1 rows with a control (silenced copies there) none ends" in verdict(statistics(grown(), worse, identity))
    assert "control" not in verdict(statistics(grown(curves=FALL), identity))


def test_one_rate_for_all_is_named():
    found = notes(statistics(grown(curves=FALL, learning_rate=2e-4), base=replace(BASE, learning_rate=2e-4)))
    assert found == [
        "All rows were trained at one rate, 0.0002, which is the best of some and not of others: --learning-rate sweep "
        "gives each its own."
    ]
    assert notes(statistics(grown(learning_rate=2e-4))) == []


def test_a_sweep_says_what_it_cost_and_what_it_leaks():
    inside = tuple(ShortRun(rate, loss, 1000, 2.0, 5e6) for rate, loss in ((1e-4, 3.1), (1e-3, 3.0), (1e-2, None)))
    first, *rest = notes(statistics(grown(curves=FALL, learning_rate=1e-3, sweep=inside)))
    assert "3K tokens, 15 GFLOP and 6.0 s in all" in first
    assert "a small leak" in first
    assert rest == []
    lowest = grown("solar", curves=FALL, learning_rate=1e-4, sweep=inside)
    assert "The best rate of solar lies at an end" in notes(statistics(lowest))[1]


def test_silent_rows_start_at_base_and_it_says_so():
    silent = grown("llama_pro", initial=(40.0,), curves=(curve([BASE_LOSS, BASE_LOSS - 0.2]),))
    [note] = notes(statistics(silent, grown(curves=FALL)))
    assert note.startswith("llama_pro starts at base's loss")
    assert "is 0 by construction and tells nothing" in note
    assert (
        "a and b start at base's loss" in notes(statistics(replace(silent, method="a"), replace(silent, method="b")))[0]
    )


def test_what_papers_train_more_is_named():
    [note] = notes(statistics(grown("solar", curves=FALL, published="everything"), grown()))
    assert note == "The paper trains everything of solar, which is more than here: see --train published."
