"""Growth methods side by side on one model, from checked options to the report.

All variants are grown together, so that every weight is read, taken apart and learned once; then each is measured, and
with --train-data trained on the same batches. The report is made from what lies finished in the output folder, so that
several processes may work on one comparison, each on a device of its own.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from filelock import FileLock, Timeout

from lesa_jax import demo
from lesa_jax.base.background import second_thread
from lesa_jax.base.errors import InputError
from lesa_jax.base.locks import among_others, turn
from lesa_jax.base.settings import by_name
from lesa_jax.base.units import duration, parse_count
from lesa_jax.comparison.checks import check_work
from lesa_jax.comparison.folder import PRESENCE_LOCK, START_LOCK, lock_file, start
from lesa_jax.comparison.grown import give_up_models, grow_missing, tidy
from lesa_jax.comparison.interrupts import no_signal_lost
from lesa_jax.comparison.job import CompareJob, make_compare_job
from lesa_jax.comparison.measure import curve, curve_origin, keep_curve, kept_curve, measure, run_settings
from lesa_jax.comparison.particulars import scope_words, with_particulars
from lesa_jax.comparison.public import data_parts, public
from lesa_jax.comparison.rates import rate_of
from lesa_jax.comparison.report import write_report
from lesa_jax.comparison.result import Comparison, Outcome
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.sweep import sweep_missing
from lesa_jax.comparison.variants import Variant
from lesa_jax.planning.record import PACKAGES


@by_name(CompareSettings)
def compare(settings: CompareSettings) -> Comparison:
    """Compares growth methods; see `CompareSettings`. Goes on with a comparison that is already in the output folder.

    Several processes may be given the same settings at a time: one grows and measures, then each trains what no other
    has taken, and all return the whole. Ctrl-C or SIGTERM while a variant is trained saves it and ends the comparison
    there; the same call goes on.

    Returns:
      What was measured; the report in the output folder says the same.

    Raises:
      InputError: bad input, found before anything is grown. A method that fails is a row of the result, no error.
    """
    job = make_compare_job(settings)
    output = job.settings.output
    with second_thread() as background:
        digests = background.submit(job.basis.digests)
        check_work(job)
        made_of = digests.result()
    output.mkdir(parents=True, exist_ok=True)
    with no_signal_lost() as check_signals, among_others(output / PRESENCE_LOCK) as is_last:
        with turn(output / START_LOCK, "grows the models and measures them"):
            job = replace(job, settings=start(job.settings, job.basis.text, made_of, job.basis.retained))
            failures = grow_missing(job)
            check_signals()
            outcomes = {}
            for variant in job.variants:
                outcomes[variant] = measure(job, variant, failures)
                check_signals()
        finished = not job.settings.trains or train_missing(job, outcomes, check_signals)
        comparison = report(job, outcomes, stopped=not finished)
        check_signals()
        if finished and not job.settings.keep_models:
            give_up_models(job)
        if is_last():
            tidy(output)
    return comparison


def train_missing(job: CompareJob, outcomes: dict[Variant, Outcome], check_signals: Callable[[], None]) -> bool:
    """Trains what has no curve yet, and reports after each. An outcome whose training fails gets the reason.

    What another process is training is left to it and looked at last, in case it was stopped.

    Returns:
      Whether it came to the end; no signal stopped it.
    """
    report(job, outcomes)
    if all(outcome.error is not None for variant, outcome in outcomes.items() if not variant.is_original):
        return True  # base alone is no comparison
    if not sweep_missing(job, outcomes):
        return False
    settings = job.settings
    # Seed after seed, so that early reports compare all methods.
    runs = [(variant, seed) for seed in range(settings.seeds) for variant in job.variants]
    taken, spent = [], []
    for number, (variant, seed) in enumerate(runs, 1):
        check_signals()
        if outcomes[variant].error is not None or kept_curve(settings, variant, seed):
            continue
        try:
            with FileLock(lock_file(settings, variant, seed), blocking=False):
                left = time_left(spent, len(runs) + 1 - number)
                print(f"training {variant.name}, seed {seed} ({number} of {len(runs)}{left})", file=sys.stderr)
                started = time.monotonic()
                if not train_variant(job, variant, seed, outcomes):
                    return False
                spent.append(time.monotonic() - started)
        except Timeout:
            taken.append((variant, seed))
        else:
            report(job, outcomes)
    for variant, seed in taken:
        check_signals()
        with turn(lock_file(settings, variant, seed), f"trains {variant.name}, seed {seed}"):
            if not train_variant(job, variant, seed, outcomes):
                return False
    return True


def time_left(spent: Sequence[float], runs: int) -> str:
    """How long so many more runs take, by the seconds of those before; nothing before the first."""
    return f", about {duration(fmean(spent) * runs)} left in all" if spent else ""


def train_variant(job: CompareJob, variant: Variant, seed: int, outcomes: dict[Variant, Outcome]) -> bool:
    """Sees to it that the variant's curve of this seed is there, or that its outcome says why it cannot be.

    Returns:
      Whether the next one is to follow; False if a signal came.
    """
    settings = job.settings
    if outcomes[variant].error is not None or kept_curve(settings, variant, seed):
        return True
    made_from = curve_origin(settings, variant, seed)
    try:
        run = run_settings(settings, variant, seed, rate_of(settings, variant))
        trained, interrupted = curve(settings, run, made_from)
    except InputError as error:
        outcomes[variant] = replace(outcomes[variant], error=public(settings, f"seed {seed}: {error}"))
        return True
    if trained is not None:
        job.basis.check_unchanged()
        keep_curve(settings, variant, seed, trained)
    if interrupted:
        print(f"stopped while training {variant.name}, seed {seed}", file=sys.stderr)
    return not interrupted


def report(job: CompareJob, outcomes: Mapping[Variant, Outcome], stopped: bool = False) -> Comparison:
    """Writes the report of what is there by now, from this process and others."""
    with FileLock(job.settings.output / "report.lock"):
        found = tuple(
            with_particulars(job.settings, job.variants, variant, with_curves(job.settings, variant, outcome))
            for variant, outcome in outcomes.items()
        )
        comparison = describe(job, found, stopped)
        write_report(comparison, job.settings.output)
    return comparison


def with_curves(settings: CompareSettings, variant: Variant, outcome: Outcome) -> Outcome:
    """The outcome with the curves of all seeds that are trained by now."""
    if outcome.error is not None or not settings.trains:
        return outcome
    found = [kept_curve(settings, variant, seed) for seed in range(settings.seeds)]
    first = next((curve for curve in found if curve is not None), None)
    if first is None:
        return outcome
    return replace(
        outcome,
        curves=tuple(() if curve is None else curve.points for curve in found),
        windows=tuple(() if curve is None else curve.windows for curve in found),
        trained_scores=tuple(() if curve is None else curve.scores for curve in found),
        step_flops=first.step_flops,
        backward_depth=first.backward_depth,
    )


def describe(job: CompareJob, outcomes: tuple[Outcome, ...], stopped: bool) -> Comparison:
    """The outcomes with all that one needs to understand and to repeat them."""
    settings, training = job.settings, job.settings.training
    tokens = None if training.train_tokens is None else parse_count("--train-tokens", training.train_tokens)
    assert settings.model is not None
    assert settings.sequence_length is not None
    return Comparison(
        model=demo.NAME if Path(settings.model) == demo.MODEL_DIRECTORY else Path(settings.model).resolve().name,
        text=job.text_name,
        protocol=settings.ppl_protocol,
        sequence_length=settings.sequence_length,
        train_data=", ".join(Path(part).name for part in data_parts(training.train_data)) or None,
        train_tokens=tokens,
        trained=None if tokens is None else scope_words(settings),
        seeds=tuple(range(settings.seeds)),
        outcomes=outcomes,
        command=job.command,
        versions={name: version(name) for name in PACKAGES},
        stopped=stopped,
        retain_text=job.retained_name,
    )
