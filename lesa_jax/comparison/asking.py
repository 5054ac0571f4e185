"""Scores of a comparison's models on --tasks, as `lesa harness` finds them; the local ones are made from --text."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lesa_jax.base.units import finite
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.families.model import ModelConfig
from lesa_jax.tasks.headline import TaskScore, headline
from lesa_jax.tasks.run import FoundTasks, ask, check_decoder, find_tasks, try_tasks
from lesa_jax.tasks.settings import HarnessSettings

HARNESS = "lm_eval"  # whose tasks they are
RESAMPLES = 1000  # tell a standard error to some 2 %


def check_asking(settings: CompareSettings, model: Path, config: ModelConfig) -> None:
    """Refuses tasks that no row can be scored on: there are none of the name, or no data, or the model cannot be asked.

    Raises:
      InputError: what `lesa harness` says of them.
    """
    if settings.tasks is not None:
        check_decoder(model, config)
        try_tasks(tasks_of(settings.tasks, settings.text))


def task_scores(settings: CompareSettings, model: Path) -> tuple[TaskScore, ...]:
    """A checkpoint's scores, in the order in which tasks are named; none without tasks."""
    if settings.tasks is None:
        return ()
    tasks = tasks_of(settings.tasks, settings.text)
    asked = HarnessSettings(str(model), tasks=settings.tasks, text=settings.text)
    order = {name: place for place, name in enumerate(tasks.names)}
    scores = headline(ask(asked, tasks, RESAMPLES))
    return tuple(sorted(scores, key=lambda score: order.get(score.task, len(order))))


@lru_cache(1)
def tasks_of(tasks: str, text: Path | None) -> FoundTasks:
    """Found once for all rows."""
    return find_tasks(HarnessSettings(tasks=tasks, text=text))


def harness_version() -> str | None:
    """Of the package that has the questions; None where it is not there, which a check refuses."""
    try:
        return version(HARNESS)
    except PackageNotFoundError:
        return None


def kept_scores(scores: Sequence[TaskScore]) -> dict[str, Any]:
    """As a file in rows/ has them, where there are any; a value that is no number is null."""
    found = [asdict(score) | {"value": finite(score.value), "error": finite(score.error)} for score in scores]
    return {"scores": found} if found else {}


def read_scores(settings: CompareSettings, value: Mapping[str, Any]) -> tuple[TaskScore, ...]:
    """Those of a file in rows/, which has some if tasks are asked."""
    if settings.tasks is None:
        return ()
    return tuple(
        TaskScore(**score | {"value": float("nan") if score["value"] is None else float(score["value"])})
        for score in value["scores"]
    )
