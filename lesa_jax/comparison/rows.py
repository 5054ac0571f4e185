"""One row of a comparison's table: what an outcome comes to, held against base and against its control."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lesa_jax.base.units import finite
from lesa_jax.comparison.curves import MeanCurve, Spent, crossing, loss_at, perplexity, shared_points, spread
from lesa_jax.comparison.result import Outcome


@dataclass(frozen=True)
class Row:
    """A row of table.json, in its order; every number is finite, and what was not measured is None.

    Attributes:
      name: the method's, with other names of the same model; of a control without a name of its own, whose it is.
      also: other names of the same model.
      trained: which weights, in words.
      learning_rate: at its peak.
      initial_perplexity, initial_sd: mean and sample standard deviation over seeds, before training.
      initial_over_base: initial perplexity divided by base's.
      tokens: trained until the last evaluation that all seeds have.
      perplexity, perplexity_sd: exp(loss per token) there.
      control: name of the row that is this one's control.
      over_control: exp(mean loss) divided by the control's, at the last tokens that both have.
      over_trained_base: the same of base, trained.
      over_trained_base_flops: the same at the last operations that both have.
      tokens_to_base, flops_to_base, seconds_to_base: spent until the mean loss is base's before training.
      tokens_to_trained_base, ..: until it is base's at the end of its own training.
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
    learning_rate: float | None
    initial_perplexity: float | None
    initial_sd: float | None
    initial_over_base: float | None
    tokens: int | None
    perplexity: float | None
    perplexity_sd: float | None
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


def make_row(this: Measured, base: Measured, control: Measured | None, target: float | None) -> Row:
    """One row of table.json.

    Args:
      this: what was measured.
      base: of the original model.
      control: of silenced copies at the same places.
      target: base's loss before training, in nats, if it is known.
    """
    outcome, is_base = this.outcome, this.outcome is base.outcome
    start, start_sd = spread(outcome.initial)
    base_start, _ = spread(base.outcome.initial)
    ends = shared_points(outcome.curves)[-1:]
    last = [point for point in ends[0] if point.tokens > 0] if ends else []
    end, end_sd = spread([perplexity(point.loss) for point in last])
    to_base = reached(this.mean if last else (), target)
    to_trained = reached(() if is_base else this.trained, base.trained[-1].loss if base.trained else None)
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
        learning_rate=outcome.learning_rate,
        initial_perplexity=start,
        initial_sd=start_sd,
        initial_over_base=start / base_start if start is not None and base_start else None,
        tokens=last[0].tokens if last else None,
        perplexity=end,
        perplexity_sd=end_sd,
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
