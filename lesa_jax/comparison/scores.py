"""What the rows' scores on tasks come to: means over seeds, the best ones, and which are apart from base's."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple

from lesa_jax.comparison.curves import ROUNDING
from lesa_jax.comparison.result import Outcome
from lesa_jax.tasks.headline import TaskScore

State = Literal["before", "after"]
APART = 2  # standard errors of a difference, of which about one in twenty is larger by chance


class MeanScore(NamedTuple):
    """A row's score, mean over seeds; and its standard error over questions, which all seeds share, mean, too."""

    value: float
    error: float | None


@dataclass(frozen=True)
class TaskTable:
    """The scores of all rows on a task.

    Attributes:
      task: as any row has it: its name, metric and questions.
      before, after: for each row its score before training and after, None where that is not known or no number.
    """

    task: TaskScore
    before: tuple[MeanScore | None, ...]
    after: tuple[MeanScore | None, ...]

    @property
    def last(self) -> tuple[MeanScore | None, ...]:
        """After training, where any row is trained by now."""
        return self.after if any(self.after) else self.before

    @property
    def best(self) -> tuple[int, ...]:
        """Positions of the rows that end best; none where all are alike."""
        known = {i: score.value for i, score in enumerate(self.last) if score is not None}
        if not known:
            return ()
        most = (max if self.task.higher_is_better else min)(known.values())
        found = tuple(i for i, value in known.items() if math.isclose(value, most, rel_tol=ROUNDING))
        return () if len(found) == len(known) > 1 else found


class Apart(NamedTuple):
    """A row whose score is better or worse than base's by more than `APART` standard errors of the difference."""

    position: int
    state: State
    task: str
    better: bool


class TaskVerdict(NamedTuple):
    """Rows that are apart from base, and how many comparisons with base there are in all."""

    apart: tuple[Apart, ...]
    compared: int


def task_tables(outcomes: Sequence[Outcome]) -> tuple[TaskTable, ...]:
    """One for each task that any row was asked, in the order in which they are."""
    seen = {score.task: score for outcome in outcomes for seed in outcome.scores for score in seed}
    return tuple(
        TaskTable(
            task,
            tuple(mean_score(outcome.scores, name) for outcome in outcomes),
            tuple(mean_score(outcome.trained_scores, name) for outcome in outcomes),
        )
        for name, task in seen.items()
    )


def mean_score(seeds: Sequence[Sequence[TaskScore]], task: str) -> MeanScore | None:
    found = [score for seed in seeds for score in seed if score.task == task]
    if not found or not all(math.isfinite(score.value) for score in found):
        return None
    errors = [score.error for score in found if score.error is not None]
    return MeanScore(fmean(score.value for score in found), fmean(errors) if len(errors) == len(found) else None)


def task_verdict(tables: Sequence[TaskTable]) -> TaskVerdict:
    """All rows against base in the same state, where both have standard errors."""
    found = [*comparisons(tables)]
    return TaskVerdict(tuple(one for one in found if one is not None), len(found))


def comparisons(tables: Sequence[TaskTable]) -> Iterator[Apart | None]:
    """Answers of two models to the same questions are taken as independent, so that the error of a difference is rather
    too large."""
    states: tuple[State, ...] = ("before", "after")
    for state in states:
        for table in tables:
            base, *others = getattr(table, state)
            for position, other in enumerate(others, 1):
                if base is None or other is None or base.error is None or other.error is None:
                    continue
                difference = other.value - base.value
                apart = abs(difference) > APART * math.hypot(base.error, other.error)
                better = (difference > 0) == table.task.higher_is_better
                yield Apart(position, state, table.task.task, better) if apart else None
