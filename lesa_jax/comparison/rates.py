"""Learning rates of a comparison's rows: which are tried in short runs, and which is a row's own.

rows/NAME.rates.json holds the short runs of a row, as far as they are done; the rate follows from them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lesa_jax.comparison.kept import origin, read, write
from lesa_jax.comparison.result import ShortRun
from lesa_jax.comparison.settings import SWEEP, CompareSettings, rates
from lesa_jax.comparison.variants import Variant

FACTOR = 4  # between neighbouring rates of a sweep
GAIN = 1e-3  # nats per token that the last step to an end has brought, where a sweep goes on beyond that end
LOWEST, HIGHEST = 3e-6, 1.5e-2  # a sweep goes no further: two steps below the rates that every one tries, and above
SHARE = 5  # of a run's steps a short run has one in so many,
LEAST = 10  # and at least so many, unless the run itself is shorter


def is_swept(settings: CompareSettings) -> bool:
    """Whether every row has a rate of its own, found by short runs."""
    return settings.trains and (settings.training.learning_rate == SWEEP or len(named(settings)) > 1)


def named(settings: CompareSettings) -> tuple[float, ...]:
    return rates(settings.training.learning_rate)


def short_steps(steps: int) -> int:
    """Of a short run, where the whole run has so many."""
    return min(steps, max(steps // SHARE, LEAST))


def next_rate(settings: CompareSettings, tried: Sequence[ShortRun]) -> float | None:
    """The rate to be tried now; None when the best one is known."""
    done = [run.learning_rate for run in tried]
    for rate in named(settings):
        if rate not in done:
            return rate
    if settings.training.learning_rate != SWEEP:
        return None
    found = best(tried)
    if found is None:
        beyond = min(done) / FACTOR  # where all diverge, lower ones may not
    elif found.learning_rate in (min(done), max(done)) and still_gains(tried, found):
        beyond = found.learning_rate * FACTOR if found.learning_rate == max(done) else found.learning_rate / FACTOR
    else:
        return None
    return beyond if LOWEST <= beyond <= HIGHEST else None


def still_gains(tried: Sequence[ShortRun], end: ShortRun) -> bool:
    """Whether the short run at an end is better by more than a trifle than the one beside it."""
    others = [run for run in tried if run is not end]
    beside = min(others, key=lambda run: abs(math.log(run.learning_rate / end.learning_rate)))
    return end.loss is not None and (beside.loss is None or beside.loss - end.loss > GAIN)


def best(tried: Sequence[ShortRun]) -> ShortRun | None:
    """The short run that ended lowest, at the lowest rate of equal ones; None if none ended."""
    ended = sorted((run for run in tried if run.loss is not None), key=lambda run: run.learning_rate)
    return min(ended, key=lambda run: math.inf if run.loss is None else run.loss, default=None)


def rate_of(settings: CompareSettings, row: Variant) -> float:
    """What a row is trained at; its short runs have been made."""
    if not is_swept(settings):
        return named(settings)[0]
    found = best(short_runs(settings, row))
    assert found is not None
    return found.learning_rate


def known_rate(settings: CompareSettings, row: Variant) -> float | None:
    """The row's learning rate, once it is known."""
    if not is_swept(settings):
        return named(settings)[0]
    tried = short_runs(settings, row)
    found = best(tried)
    return None if found is None or next_rate(settings, tried) is not None else found.learning_rate


def short_runs(settings: CompareSettings, row: Variant) -> tuple[ShortRun, ...]:
    """Those that are done, in the order in which they were."""

    def parse(value: Mapping[str, Any]) -> tuple[ShortRun, ...]:
        return tuple(ShortRun(**run) for run in value["runs"])

    if not is_swept(settings):
        return ()
    return read(rates_file(settings, row), origin(settings, row), parse) or ()


def keep_short_runs(settings: CompareSettings, row: Variant, runs: Sequence[ShortRun]) -> None:
    write(rates_file(settings, row), origin(settings, row), {"runs": [asdict(run) for run in runs]})


def rates_file(settings: CompareSettings, row: Variant) -> Path:
    return settings.output / "rows" / f"{row.name}.rates.json"


def rates_lock(settings: CompareSettings, row: Variant) -> Path:
    """Held by the process that makes a row's short runs."""
    return settings.output / "rows" / f"{row.name}.rates.lock"
