"""One row of a comparison's table: what an outcome comes to, held against base and against its control."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lesa_jax.base.units import finite
from lesa_jax.comparison.chance import Difference, difference, mean_interval
from lesa_jax.comparison.curves import MeanCurve, Spent, crossing, loss_at, perplexity, shared_points, spread
from lesa_jax.comparison.result import Outcome

CONTROLS = ("identity", "identity_next")  # silenced copies, to hold methods against


@dataclass(frozen=True)
class Row:
    """A row of table.json, in its order; every number is finite, and what was not measured is None.

    Attributes:
      name: the method's, with other names of the same model; of a control without a name of its own, whose it is.
      also: other names of the same model.
      trained: which weights, in words.
      optimizer: that trains them; None where it is the same in all rows.
      replay: share of the trained rows that are from the old text; None where it is the same in all rows.
      learning_rate: at its peak.
      initial_perplexity, initial_sd: mean and sample standard deviation over seeds, before training.
      initial_over_base: initial perplexity divided by base's.
      tokens: trained until the last evaluation that all seeds have.
      perplexity, perplexity_sd: exp(loss per token) there; perplexity_low, perplexity_high: 95 % interval of its mean,
        of three seeds or more.
      retained, retained_sd: the same of the text of what the model knew before; retained_over_base: of its mean loss,
        divided by base's before training.
      control: name of the row that is this one's control.
      over_control: exp(mean loss) divided by the control's, at the last tokens that both have.
      over_trained_base: the same of base, trained.
      over_trained_base_flops: the same at the last operations that both have.
      tokens_to_base, flops_to_base, seconds_to_base: spent until the mean loss is base's before training.
      tokens_to_trained_base, ..: until it is base's at the end of its own training.
      over_best: exp(mean loss) at the end divided by that of the best rival (`best_rival`).
      tokens_to_best, ..: until the mean loss is that at which this one ends.
      step_flops: operations per trained token.
      step_cost_over_base: step_flops divided by base's; left out of table.json where base was not trained.
      sweep_tokens, sweep_flops, sweep_seconds: what it cost to find the learning rate.
      seeds: that were trained, or else measured.
      error: all that is wrong with the row.
    """

    method: str
    name: str
    also: tuple[str, ...]
    placement: str
    layers: int
    new_layers: tuple[int, ...]
    parameters: int
    new_parameters: int
    trained: str | None
    optimizer: str | None
    replay: float | None
    learning_rate: float | None
    initial_perplexity: float | None
    initial_sd: float | None
    initial_over_base: float | None
    tokens: int | None
    perplexity: float | None
    perplexity_sd: float | None
    perplexity_low: float | None
    perplexity_high: float | None
    retained: float | None
    retained_sd: float | None
    retained_over_base: float | None
    control: str | None
    over_control: float | None
    over_trained_base: float | None
    over_trained_base_flops: float | None
    tokens_to_base: float | None
    flops_to_base: float | int | None
    seconds_to_base: float | int | None
    tokens_to_trained_base: float | None
    flops_to_trained_base: float | int | None
    seconds_to_trained_base: float | int | None
    over_best: float | None
    tokens_to_best: float | None
    flops_to_best: float | int | None
    seconds_to_best: float | int | None
    step_flops: float | int | None
    step_cost_over_base: float | None
    backward_depth: int | None
    sweep_tokens: int | None
    sweep_flops: float | None
    sweep_seconds: float | None
    seeds: int
    error: str | None


class Measured(NamedTuple):
    """An outcome, the mean of its curves, and what it is called among the others."""

    outcome: Outcome
    mean: MeanCurve
    label: str

    @property
    def trained(self) -> MeanCurve:
        """The mean curve, if anything was trained."""
        return self.mean if len(self.mean) > 1 else ()


def make_row(
    this: Measured, base: Measured, control: Measured | None, target: float | None, rival: Measured | None = None
) -> Row:
    """One row of table.json.

    Args:
      this: what was measured.
      base: of the original model.
      control: of silenced copies at the same places.
      target: base's loss before training, in nats, if it is known.
      rival: the best one, see `best_rival`.
    """
    outcome, is_base = this.outcome, this.outcome is base.outcome
    start, start_sd = spread(outcome.initial)
    base_start, _ = spread(base.outcome.initial)
    ends = shared_points(outcome.curves)[-1:]
    last = [point for point in ends[0] if point.tokens > 0] if ends else []
    perplexities = [perplexity(point.loss) for point in last]
    (end, end_sd), (low, high) = spread(perplexities), mean_interval(perplexities)
    to_base = reached(this.mean if last else (), target)
    to_trained = reached(() if is_base else this.trained, base.trained[-1].loss if base.trained else None)
    best = rival.trained[-1].loss if rival is not None else None
    to_best = reached(this.trained, best)
    kept = [point.retained for point in last if point.retained is not None]
    retained, retained_sd = spread([perplexity(loss) for loss in kept])
    kept_by_base = base.mean[0].retained if base.mean else None
    step, base_step = finite(outcome.step_flops), finite(base.outcome.step_flops)
    sweep = outcome.sweep
    errors = [outcome.error] if outcome.error else []
    if outcome.initial and start is None:
        errors.append("the perplexity before training is not finite")
    if last and end is None:
        errors.append(f"the loss after {last[0].tokens} tokens is not finite")
    return Row(
        method=outcome.method,
        name=outcome.title,
        also=outcome.also,
        placement=outcome.placement,
        layers=outcome.layers,
        new_layers=outcome.new_layers,
        parameters=outcome.parameters,
        new_parameters=outcome.new_parameters,
        trained=outcome.trained,
        optimizer=outcome.optimizer,
        replay=outcome.replay,
        learning_rate=outcome.learning_rate,
        initial_perplexity=start,
        initial_sd=start_sd,
        initial_over_base=start / base_start if start is not None and base_start else None,
        tokens=last[0].tokens if last else None,
        perplexity=end,
        perplexity_sd=end_sd,
        perplexity_low=low,
        perplexity_high=high,
        retained=retained,
        retained_sd=retained_sd,
        retained_over_base=over_start(this.trained, kept_by_base),
        control=None if control is None else control.label,
        over_control=None if control is None else over(this.trained, control.trained, "tokens"),
        over_trained_base=None if is_base else over(this.trained, base.trained, "tokens"),
        over_trained_base_flops=None if is_base else over(this.trained, base.trained, "flops"),
        tokens_to_base=to_base and to_base.tokens,
        flops_to_base=to_base and finite(to_base.flops),
        seconds_to_base=to_base and finite(to_base.seconds),
        tokens_to_trained_base=to_trained and to_trained.tokens,
        flops_to_trained_base=to_trained and finite(to_trained.flops),
        seconds_to_trained_base=to_trained and finite(to_trained.seconds),
        over_best=None if best is None or not this.trained else finite(perplexity(this.trained[-1].loss - best)),
        tokens_to_best=to_best and to_best.tokens,
        flops_to_best=to_best and finite(to_best.flops),
        seconds_to_best=to_best and finite(to_best.seconds),
        step_flops=step,
        step_cost_over_base=step / base_step if step is not None and base_step else None,
        backward_depth=outcome.backward_depth,
        sweep_tokens=sum(run.tokens for run in sweep) if sweep else None,
        sweep_flops=sweep_flops(outcome),
        sweep_seconds=sum(run.seconds for run in sweep) if sweep else None,
        seeds=len(last) or len(outcome.initial),
        error="; ".join(errors) or None,
    )


def reached(curve: MeanCurve, target: float | None) -> Spent | None:
    return crossing(curve, target) if curve else None


def over(curve: MeanCurve, other: MeanCurve, axis: Literal["tokens", "flops"]) -> float | None:
    """Perplexity divided by another curve's where both have spent as much as the cheaper one has in all."""
    if not curve or not other:
        return None
    spent = min(getattr(curve[-1], axis), getattr(other[-1], axis))
    here, there = loss_at(curve, axis, spent), loss_at(other, axis, spent)
    return None if here is None or there is None else finite(perplexity(here - there))


def over_start(curve: MeanCurve, kept_by_base: float | None) -> float | None:
    """Perplexity on what was known, at the end of a mean curve, divided by base's before training."""
    if not curve or kept_by_base is None or (end := curve[-1].retained) is None:
        return None
    return finite(perplexity(end - kept_by_base))


def best_rival(this: Measured, measured: Sequence[Measured]) -> Measured | None:
    """The other row that ends at the lowest mean loss; controls are none.

    Nor is the first row, the base that all are held against anyway. Base trained in another way, with another optimiser
    or share of replay, is a rival as any other.
    """
    others = [
        other for other in measured[1:] if other is not this and other.trained and other.outcome.method not in CONTROLS
    ]
    return min(others, key=lambda other: other.trained[-1].loss, default=None)


def differences(
    this: Measured, base: Measured, control: Measured | None, rival: Measured | None
) -> tuple[Difference, ...]:
    """How far above trained base, its control and the best rival a row ends, with tests of whether that is chance."""
    others = {"trained base": None if base is this else base, "control": control, "best rival": rival}
    known = ((against, other) for against, other in others.items() if other is not None)
    found = (difference(this.outcome, other.outcome, against, other.label) for against, other in known)
    return tuple(one for one in found if one is not None)


def sweep_flops(outcome: Outcome) -> float | None:
    """Operations of all short runs; a step costs what it costs at any rate, also where a run diverged."""
    known = [run.step_flops for run in outcome.sweep if run.step_flops is not None and math.isfinite(run.step_flops)]
    return known[0] * sum(run.tokens for run in outcome.sweep) if known else None


def labels(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """A name for each outcome: the method; with placement, then layers too, where that is there twice."""
    forms = [(o.title, f"{o.title} ({o.placement})", f"{o.title} ({o.placement}, {o.layers} layers)") for o in outcomes]
    columns = [[names[depth] for names in forms] for depth in range(3)]
    return tuple(
        next((name for name, column in zip(names, columns, strict=True) if column.count(name) == 1), names[-1])
        for names in forms
    )
