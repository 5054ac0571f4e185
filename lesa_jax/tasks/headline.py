"""What lm-evaluation-harness's results come to: one score for each task that was asked for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FIRST = ("acc", "acc_norm")  # the metric that a task is known by, where it has it; otherwise its own first


@dataclass(frozen=True)
class TaskScore:
    """A model's score on a task.

    Attributes:
      task: its name, or that of a group with a score of its own.
      metric: by which it is scored.
      value: the score; NaN or infinite where it is no number.
      error: its standard error over questions; None where there is none.
      higher_is_better: otherwise lower is.
      questions: that were asked.
      shots: solved examples before each; None where a group's tasks differ.
    """

    task: str
    metric: str
    value: float
    error: float | None
    higher_is_better: bool
    questions: int
    shots: int | None


def headline(results: Mapping[str, Any]) -> tuple[TaskScore, ...]:
    """The scores in the results of `lesa_jax.tasks.run.harness`; a group's own score stands for all of its tasks."""
    scored = {task: metrics(found) for task, found in results["results"].items()}
    inside = {member for task, found in scored.items() if found for member in members(results, task)}
    return tuple(first(results, task, found) for task, found in scored.items() if found and task not in inside)


def metrics(found: Mapping[str, Any]) -> dict[str, str]:
    """Of a task, by the key of its value: a metric has one for each way of reading an answer."""
    return {
        key: metric
        for key, value in found.items()
        for metric, comma, _ in [key.partition(",")]
        if comma and not metric.endswith("_stderr") and isinstance(value, int | float)
    }


def first(results: Mapping[str, Any], task: str, found: Mapping[str, str]) -> TaskScore:
    key = next((key for name in FIRST for key, metric in found.items() if metric == name), next(iter(found)))
    metric, scores = found[key], results["results"][task]
    error = scores.get(key.replace(metric, f"{metric}_stderr", 1))
    leaves = [name for name in (task, *members(results, task)) if name in results["n-samples"]]
    shots = {results["n-shot"].get(name, 0) for name in leaves}
    better = results["higher_is_better"].get(task, {}).get(metric)
    return TaskScore(
        task=task,
        metric=metric,
        value=float(scores[key]),
        error=float(error) if isinstance(error, int | float) else None,
        higher_is_better=better is not False,
        questions=sum(results["n-samples"][name]["effective"] for name in leaves),
        shots=shots.pop() if len(shots) == 1 else None,
    )


def members(results: Mapping[str, Any], group: str) -> Iterable[str]:
    """All that is inside a group, groups and tasks; of a task nothing."""
    for name in results["group_subtasks"].get(group, ()):
        if name != group:
            yield name
            yield from members(results, name)
