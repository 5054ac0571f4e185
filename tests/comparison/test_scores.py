"""Scores on tasks in the report: means, the best, what is apart from base, and what tables and pages say."""

import json
import math
from dataclasses import replace

import pytest

from lesa_jax.comparison.asking import kept_scores, read_scores
from lesa_jax.comparison.page import page
from lesa_jax.comparison.scores import Apart, MeanScore, task_tables, task_verdict
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.statistics import Statistics
from lesa_jax.comparison.table import markdown, records
from lesa_jax.comparison.verdict import verdict
from lesa_jax.tasks.headline import TaskScore
from tests.support.comparisons import BASE, HOSTILE, Walk, grown, statistics


def choice(value: float, error: float | None = 0.03, task: str = "choice") -> TaskScore:
    return TaskScore(task, "acc", value, error, True, 200, 0)


def text(value: float) -> TaskScore:
    return TaskScore("text", "word_perplexity", value, None, False, 1000, 5)


def scored(before: tuple[TaskScore, ...], after: tuple[TaskScore, ...] | None = None, method: str = "lesa"):
    return replace(grown(method), scores=(before,), trained_scores=() if after is None else (after,))


def trained(**more) -> Statistics:
    base = replace(BASE, scores=((choice(0.5), text(90.0)),), trained_scores=((choice(0.55), text(60.0)),))
    lesa = scored((choice(0.3), text(200.0)), (choice(0.5), text(55.5)))
    return statistics(lesa, scored((choice(0.5), text(90.0)), (choice(0.7), text(70.0)), "solar"), base=base, **more)


def test_means_are_over_seeds_and_errors_do_not_shrink_with_them():
    """All seeds are asked the same questions."""
    row = replace(grown(), scores=((choice(0.25, 0.02),), (choice(0.75, 0.04),)), trained_scores=((), (choice(0.5),)))
    [table] = task_tables([BASE, row])
    assert table.before[0] is None
    assert table.before[1] == pytest.approx((0.5, 0.03))
    assert table.after == (None, MeanScore(0.5, 0.03))


def test_what_is_no_number_is_no_score():
    [table] = task_tables([replace(BASE, scores=((text(math.nan),),)), scored((text(3.0),))])
    assert table.before == (None, MeanScore(3.0, None))
    assert table.best == (1,)


def test_the_best_is_the_highest_or_of_perplexities_the_lowest_and_of_equal_ones_all():
    tables = trained().tasks
    assert [table.best for table in tables] == [(2,), (1,)]
    alike = task_tables([replace(BASE, scores=((choice(0.5),),)), scored((choice(0.5),)), scored((choice(0.4),))])
    assert alike[0].best == (0, 1)
    assert task_tables([replace(BASE, scores=((choice(0.5),),)), scored((choice(0.5),))])[0].best == ()


def test_apart_is_more_than_two_standard_errors_of_the_difference():
    """Of 0.03 and 0.04 that is 0.1."""
    base = replace(BASE, scores=((choice(0.5, 0.03), text(90.0)),))
    for value, apart in ((0.601, True), (0.599, False), (0.401, False), (0.399, True)):
        found = task_verdict(task_tables([base, scored((choice(value, 0.04), text(1.0)))]))
        wanted = (Apart(1, "before", "choice", value > 0.5),) if apart else ()
        assert found == (wanted, 1)  # a perplexity without a standard error tells nothing


def test_the_verdict_speaks_of_what_is_apart_and_of_nothing_else():
    said = verdict(trained())
    assert (
        "Of 4 scores on tasks 2 are more than 2 standard errors from base's at that time, where about one in twenty is "
        "by chance: before training lesa worse on choice; after training solar better on choice."
    ) in said
    base = replace(BASE, scores=((choice(0.5),),))
    assert "tasks" not in verdict(statistics(scored((choice(0.45),)), base=base))
    assert "tasks" not in verdict(statistics(grown()))


def test_table_md_has_them_with_questions_and_shots():
    found = markdown(trained())
    assert "| method | choice acc | text word_perplexity |" in found
    assert "| base | 0.5000 -> 0.5500 (0.0300, 0.0300) | 90.00 -> 60.00 |" in found
    assert "| lesa | 0.3000 -> 0.5000 (0.0300, 0.0300) | 200.00 -> 55.50 (best) |" in found
    assert "| solar | 0.5000 -> 0.7000 (0.0300, 0.0300; best) | 90.00 -> 70.00 |" in found
    assert "choice acc: 200 questions, no solved examples; higher is better." in found
    assert "text word_perplexity: 1,000 texts, 5 solved examples; lower is better." in found
    before = markdown(statistics(scored((choice(0.3),)), replace(grown("solar"), error="broken")))
    assert "| lesa | 0.3000 (0.0300; best) |" in before
    assert "| solar | - |" in before
    assert "solved" not in markdown(statistics(grown()))


def test_the_page_has_them_escaped_and_sorted_by_the_last_number():
    found = page(trained())
    assert '<td data-value="0.7">0.5000 -&gt; 0.7000<small>(0.0300, 0.0300; best)</small></td>' in found
    assert '<td data-value="60.0">90.00 -&gt; 60.00</td>' in found
    assert Walk(found).text.count("Tasks") == 1
    hostile = Walk(page(statistics(scored((choice(0.3, task=HOSTILE),)))))
    assert hostile.tags.count("script") == 1
    assert HOSTILE in hostile.text
    assert "Tasks" not in page(statistics(grown()))


def test_table_json_has_them_where_tasks_were_asked():
    base, lesa, _ = records(trained())
    assert base["tasks"]["choice"]["after"] == 0.55
    assert lesa["tasks"] == {
        "choice": {
            "metric": "acc", "higher_is_better": True, "questions": 200, "shots": 0,
            "before": 0.3, "before_error": 0.03, "after": 0.5, "after_error": 0.03,
        },
        "text": {
            "metric": "word_perplexity", "higher_is_better": False, "questions": 1000, "shots": 5,
            "before": 200.0, "before_error": None, "after": 55.5, "after_error": None,
        },
    }  # fmt: skip
    assert "tasks" not in records(statistics(grown()))[0]


def test_kept_scores_are_read_as_they_were():
    scores = (choice(0.5, None), text(math.inf), replace(choice(0.0, 0.0), shots=None))
    kept = json.loads(json.dumps(kept_scores(scores), allow_nan=False))
    found = read_scores(CompareSettings(tasks="choice"), kept)
    assert found[::2] == scores[::2]
    assert math.isnan(found[1].value)
    assert kept_scores(()) == {}
    assert read_scores(CompareSettings(), {}) == ()
    with pytest.raises(KeyError):
        read_scores(CompareSettings(tasks="choice"), {})
