"""The learning rate of each row of a comparison, by short runs that several processes share.

The first seed's model and batches choose, by the held-out loss at the end; all seeds are then trained at that rate.
"""

import sys
import time
from dataclasses import replace

from filelock import FileLock, Timeout

from lesa_jax.base.errors import DivergedError, InputError
from lesa_jax.base.locks import turn
from lesa_jax.base.units import finite
from lesa_jax.comparison.curves import perplexity
from lesa_jax.comparison.job import CompareJob
from lesa_jax.comparison.kept import origin
from lesa_jax.comparison.measure import curve, kept_curve, mask_steps, run_settings, whole_steps
from lesa_jax.comparison.public import public
from lesa_jax.comparison.rates import (
    best,
    is_swept,
    keep_short_runs,
    next_rate,
    rates_lock,
    short_runs,
    short_steps,
)
from lesa_jax.comparison.result import Outcome, ShortRun
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import Variant
from lesa_jax.reports.numbers import amount, number
from lesa_jax.training.settings import TrainSettings

NO_RATE = "every learning rate that was tried diverged"


def sweep_missing(job: CompareJob, outcomes: dict[Variant, Outcome]) -> bool:
    """Finds the learning rates that are asked for and not known. A row without one gets the reason.

    What another process tries is left to it and looked at last, in case it was stopped.

    Returns:
      Whether it came to the end; no signal stopped it.
    """
    settings, taken = job.settings, []
    for row in job.variants if is_swept(settings) else ():
        try:
            with FileLock(rates_lock(settings, row), blocking=False):
                if not sweep(job, row, outcomes):
                    return False
        except Timeout:
            taken.append(row)
    for row in taken:
        with turn(rates_lock(settings, row), f"looks for the learning rate of {row.name}"):
            if not sweep(job, row, outcomes):
                return False
    return True


def sweep(job: CompareJob, row: Variant, outcomes: dict[Variant, Outcome]) -> bool:
    """Sees to it that a row's rate is known, or that its outcome says why it cannot be.

    Returns:
      Whether that is so; False if a signal stopped it.
    """
    settings = job.settings
    trained = all(kept_curve(settings, row, seed) for seed in range(settings.seeds))
    if trained or outcomes[row].error is not None:
        return True
    tried = [*short_runs(settings, row)]
    while (rate := next_rate(settings, tried)) is not None:
        print(f"looking for the learning rate of {row.name}: {rate:g}", file=sys.stderr)
        try:
            found, interrupted = short_run(settings, row, rate)
        except InputError as error:
            outcomes[row] = replace(outcomes[row], error=public(settings, f"learning rate {rate:g}: {error}"))
            return True
        if found is not None:
            job.basis.check_unchanged()
            tried.append(found)
            keep_short_runs(settings, row, tried)
        if interrupted:
            print(f"stopped while looking for the learning rate of {row.name}", file=sys.stderr)
            return False
        if next_rate(settings, tried) is None:
            print(f"learning rate of {row.name}: {told(tried)}", file=sys.stderr)
    if best(tried) is None:
        outcomes[row] = replace(outcomes[row], error=NO_RATE)
    return True


def short_run(settings: CompareSettings, row: Variant, rate: float) -> tuple[ShortRun | None, bool]:
    """Tries a rate; None if a signal stopped it. And whether a signal came, be it after its end."""
    started, job = time.monotonic(), short_settings(settings, row, rate)
    assert job.steps is not None
    assert job.batch.sequence_length is not None
    tokens = job.steps * job.batch.batch_size * job.batch.sequence_length
    try:
        result, interrupted = curve(settings, job, origin(settings, row))
    except DivergedError:
        return ShortRun(rate, None, tokens, time.monotonic() - started, None), False
    if result is None:
        return None, interrupted
    end, seconds = result.points[-1], time.monotonic() - started
    return ShortRun(rate, finite(end.loss), tokens, seconds, result.step_flops, end.retained), interrupted


def short_settings(settings: CompareSettings, row: Variant, rate: float) -> TrainSettings:
    """The run of the first seed, but shorter, to the end of its schedule."""
    run = run_settings(settings, row, 0, rate)
    steps = short_steps(whole_steps(settings))
    return replace(
        run,
        output=run.output.with_name(f"{row.name}-rate-{rate:g}"),
        tokens=None,
        steps=steps,
        mask_steps=mask_steps(row, steps),
        held_out=replace(run.held_out, eval_every=steps),
        keeping=replace(run.keeping, save_every=steps, export="none"),
    )


def told(tried: list[ShortRun]) -> str:
    """What a sweep found, and what it cost."""
    found = best(tried)
    ends = ", ".join(
        f"{run.learning_rate:g} {'diverged' if run.loss is None else number(perplexity(run.loss))}" for run in tried
    )
    tokens, seconds = sum(run.tokens for run in tried), sum(run.seconds for run in tried)
    flops = sum(run.tokens * (run.step_flops or 0) for run in tried)
    cost = f"{amount(tokens, 'tokens')} tokens, {amount(flops, 'flops')}, {amount(seconds, 'seconds')}"
    return f"{'none' if found is None else f'{found.learning_rate:g}'} (perplexities: {ends}; cost: {cost})"
