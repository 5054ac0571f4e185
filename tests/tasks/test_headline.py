"""The one score of a task, out of what lm-evaluation-harness reports."""

import pytest

from lesa_jax.harness import harness
from lesa_jax.tasks.headline import TaskScore, headline
from lesa_jax.tasks.run import LOCAL

GROUP = """
group: both
task: [one, other]
aggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: true}]
"""
TASK = """
include: {include}
task: {task}
num_fewshot: {shots}
fewshot_split: test
"""


@pytest.fixture(scope="module")
def results(place):
    folder = place / "tasks"
    folder.mkdir()
    for task, local, shots in (("one", "lesa_choice", 1), ("other", "lesa_choice", 0)):
        text = TASK.format(include=LOCAL / f"{local}.yaml", task=task, shots=shots)
        (folder / f"{task}.yaml").write_text(text)
    (folder / "both.yaml").write_text(GROUP)
    asked = {"tasks": "both,lesa_choice,lesa_text", "include_path": folder, "text": place / "eval.txt", "limit": 2}
    return harness(model=str(place / "base"), **asked)


def test_a_task_is_known_by_its_accuracy_or_its_own_first_metric(results):
    choice, text = (score for score in headline(results) if score.task.startswith("lesa"))
    found = results["results"]["lesa_choice"]
    assert choice == TaskScore("lesa_choice", "acc", found["acc,none"], found["acc_stderr,none"], True, 2, 0)
    value = results["results"]["lesa_text"]["word_perplexity,none"]
    assert text == TaskScore("lesa_text", "word_perplexity", value, None, False, 1, 0)


def test_a_groups_score_stands_for_its_tasks(results):
    [both] = (score for score in headline(results) if not score.task.startswith("lesa"))
    parts = [results["results"][task]["acc,none"] for task in ("one", "other")]
    assert both.task == "both"
    assert both.metric == "acc"
    assert both.value == pytest.approx(sum(parts) / 2)
    assert both.error == results["results"]["both"]["acc_stderr,none"]
    assert both.questions == 4
    assert both.shots is None


def test_a_group_without_a_score_is_its_tasks():
    """Made up: it needs groups of groups."""
    results = {
        "results": {
            "tag": {"alias": "tag"},
            "a": {"exact_match,strict": 0.5, "exact_match_stderr,strict": 0.1, "exact_match,loose": 0.75},
            "b": {"acc_norm,none": 0.25, "acc,none": 0.5, "acc_stderr,none": "N/A"},
        },
        "group_subtasks": {"tag": ["a", "inner"], "inner": ["b"], "a": [], "b": []},
        "n-samples": {name: {"original": 9, "effective": 4} for name in "ab"},
        "n-shot": {"a": 5, "b": 5},
        "higher_is_better": {"a": {"exact_match": True}, "b": {"acc": True}},
    }
    assert headline(results) == (
        TaskScore("a", "exact_match", 0.5, 0.1, True, 4, 5),
        TaskScore("b", "acc", 0.5, None, True, 4, 5),
    )
