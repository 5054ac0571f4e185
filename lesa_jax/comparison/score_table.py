"""Scores on tasks for readers: lines of a table, what its columns are, and a record for table.json."""

from collections.abc import Sequence
from typing import Any

from lesa_jax.comparison.scores import MeanScore, TaskTable
from lesa_jax.comparison.statistics import Statistics
from lesa_jax.reports.numbers import number

NOTE = (
    "Before training and after it, each the mean over seeds; in brackets the standard errors over questions. After "
    "training the exported checkpoint is scored, in its stored dtype."
)
UNTRAINED = "In brackets the standard error over questions."


def score_heads(statistics: Statistics) -> list[str]:
    return ["method", *(f"{table.task.task} {table.task.metric}" for table in statistics.tasks)]


def score_lines(statistics: Statistics) -> list[list[tuple[str, float | str | None]]]:
    """For each row its name and its scores: a text of one line or two, and what it is sorted by."""
    return [
        [(label, label), *(score_cell(table, position) for table in statistics.tasks)]
        for position, label in enumerate(statistics.labels)
    ]


def score_cell(table: TaskTable, position: int) -> tuple[str, float | None]:
    last = table.last[position]
    shown = [table.before[position], *([table.after[position]] if any(table.after) else [])]
    if not any(shown):
        return "-", None
    values = " -> ".join("-" if one is None else value_text(one.value) for one in shown)
    errors = ", ".join(value_text(one.error) for one in shown if one is not None and one.error is not None)
    below = "; ".join(filter(None, [errors, "best" if position in table.best else ""]))
    return f"{values}\n({below})" if below else values, None if last is None else last.value


def value_text(value: float) -> str:
    """Shares of questions with four decimals, perplexities as elsewhere."""
    return f"{value:.4f}" if abs(value) < 10 else number(value)


def score_meanings(statistics: Statistics) -> list[tuple[str, str]]:
    """Of the columns, by heading."""
    return [*zip(score_heads(statistics)[1:], map(meaning, statistics.tasks), strict=True)]


def meaning(table: TaskTable) -> str:
    task = table.task
    shots = {None: "solved examples as each of its tasks has", 0: "no solved examples", 1: "one solved example"}
    told = shots.get(task.shots, f"{task.shots} solved examples")
    thing = "question" if task.higher_is_better else "text"  # whose perplexity it is
    things = thing if task.questions == 1 else f"{thing}s"
    return f"{task.questions:,} {things}, {told}; {'higher' if task.higher_is_better else 'lower'} is better."


def score_note(statistics: Statistics) -> str:
    return NOTE if any(any(table.after) for table in statistics.tasks) else UNTRAINED


def score_record(tables: Sequence[TaskTable], position: int) -> dict[str, Any]:
    """Of one row, in table.json; nothing where no tasks were asked."""
    found = {
        table.task.task: {
            "metric": table.task.metric,
            "higher_is_better": table.task.higher_is_better,
            "questions": table.task.questions,
            "shots": table.task.shots,
            **value_record("before", table.before[position]),
            **value_record("after", table.after[position]),
        }
        for table in tables
    }
    return {"tasks": found} if found else {}


def value_record(state: str, score: MeanScore | None) -> dict[str, float | None]:
    value, error = (None, None) if score is None else score
    return {state: value, f"{state}_error": error}
