"""One variant of a comparison, measured before training and trained."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.base.units import finite, parse_count
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.comparison.asking import kept_scores, read_scores, task_scores
from lesa_jax.comparison.folder import RUNS, curve_file, model_folder, original_folder, row_file
from lesa_jax.comparison.job import CompareJob
from lesa_jax.comparison.kept import origin, prepare_run, read, remove, write
from lesa_jax.comparison.public import public
from lesa_jax.comparison.rates import known_rate
from lesa_jax.comparison.replay import training_data
from lesa_jax.comparison.result import Outcome, Point
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import BASE, Variant
from lesa_jax.evaluation.perplexity import Window
from lesa_jax.evaluation.run import EvaluateSettings, evaluate
from lesa_jax.families.stacks import count_stacks
from lesa_jax.planning.plan import Plan
from lesa_jax.planning.record import read_growth
from lesa_jax.tasks.headline import TaskScore
from lesa_jax.tracking.log import METRICS, WINDOWS, read_metrics, read_windows
from lesa_jax.training.folder import FINAL
from lesa_jax.training.run import train
from lesa_jax.training.settings import BatchSettings, HeldOutSettings, KeepSettings, OptimizerSettings, TrainSettings


@dataclass(frozen=True)
class MeasuredRow:
    """Size, perplexity and scores of one model, as rows/NAME-SEED.json has them; NaN where it is no number."""

    layers: int
    new_layers: tuple[int, ...]
    parameters: int
    new_parameters: int
    perplexity: float
    nll: float
    scores: tuple[TaskScore, ...] = ()


@dataclass(frozen=True)
class TrainedCurve:
    """Held-out losses of one run, with what was spent on them, as rows/NAME-SEED.curve.json has them.

    `windows` are the held-out text's at the end, `scores` those of the trained model.
    """

    step_flops: float | None
    backward_depth: int | None
    points: tuple[Point, ...]
    windows: tuple[Window, ...]
    scores: tuple[TaskScore, ...] = ()


def measure(job: CompareJob, variant: Variant, failures: Mapping[Path, InputError]) -> Outcome:
    """A variant before training: one perplexity for each seed that grows a model of its own.

    Args:
      job: the comparison.
      variant: the row.
      failures: why models could not be grown, by their folder.

    Raises:
      InputError: what the comparison is about has changed meanwhile. Whatever else goes wrong is the outcome's error.
    """
    settings, rows = job.settings, []
    for seed in variant.starts(settings.seeds):
        folder = model_folder(settings, variant, seed)
        try:
            if folder in failures:
                raise failures[folder]
            kept = kept_row(settings, variant, seed)
            row = kept or measured_row(settings, variant, seed)
        except InputError as error:
            return Outcome(variant.method, variant.place, 0, (), 0, 0, error=public(settings, error))
        if kept is None:
            job.basis.check_unchanged()
            keep_row(settings, variant, seed, row)
        rows.append(row)
    row = rows[0]
    return Outcome(
        method=variant.method,
        placement=variant.place,
        layers=row.layers,
        new_layers=row.new_layers,
        parameters=row.parameters,
        new_parameters=row.new_parameters,
        initial=tuple(row.perplexity for row in rows),
        curves=((Point(0, 0.0, 0.0, row.nll),),) if variant.method == BASE else (),
        scores=tuple(row.scores for row in rows),
    )


def through_stacks(plan: Plan) -> tuple[int, ...]:
    """Positions of the new layers, those of a decoder counted on from its encoder's last."""
    encoder = 0 if plan.encoder is None else plan.encoder.layers
    below = () if plan.encoder is None else plan.encoder.new_layers
    return (*below, *(encoder + layer for layer in plan.new_layers))


def kept_row(settings: CompareSettings, variant: Variant, seed: int) -> MeasuredRow | None:
    """What was measured before; None where nothing was, or something has changed since."""

    def parse(value: Mapping[str, Any]) -> MeasuredRow:
        sizes = [int(value[name]) for name in ("layers", "parameters", "new_parameters")]
        layers, parameters, new_parameters = sizes
        new_layers = tuple(int(layer) for layer in value["new_layers"])
        perplexity, nll = number(value["perplexity"]), number(value["nll"])
        scores = read_scores(settings, value)
        return MeasuredRow(layers, new_layers, parameters, new_parameters, perplexity, nll, scores)

    return read(row_file(settings, variant, seed), origin(settings, variant, seed), parse)


def keep_row(settings: CompareSettings, variant: Variant, seed: int, row: MeasuredRow) -> None:
    value = asdict(row) | {"perplexity": finite(row.perplexity), "nll": finite(row.nll)}
    del value["scores"]
    write(row_file(settings, variant, seed), origin(settings, variant, seed), value | kept_scores(row.scores))


def kept_curve(settings: CompareSettings, variant: Variant, seed: int) -> TrainedCurve | None:
    """What was trained before; None where nothing was, or something has changed since."""

    def parse(value: Mapping[str, Any]) -> TrainedCurve:
        points = tuple(
            Point(int(tokens), number(flops), number(seconds), number(loss), retained)
            for tokens, flops, seconds, loss, retained in value["points"]
        )
        depth = value["backward_depth"]
        windows = tuple(Window(int(tokens), number(loss)) for tokens, loss in value["windows"])
        depth = None if depth is None else int(depth)
        return TrainedCurve(value["step_flops"], depth, points, windows, read_scores(settings, value))

    return read(curve_file(settings, variant, seed), curve_origin(settings, variant, seed), parse)


def keep_curve(settings: CompareSettings, variant: Variant, seed: int, curve: TrainedCurve) -> None:
    points = [[finite(value) for value in astuple(point)] for point in curve.points]
    windows = [[tokens, finite(loss)] for tokens, loss in curve.windows]
    sizes = {"step_flops": curve.step_flops, "backward_depth": curve.backward_depth}
    value = {**sizes, "points": points, "windows": windows, **kept_scores(curve.scores)}
    write(curve_file(settings, variant, seed), curve_origin(settings, variant, seed), value)


def curve_origin(settings: CompareSettings, variant: Variant, seed: int) -> str:
    """Of a curve: also the learning rate, which short runs may have found."""
    return origin(settings, variant, seed, known_rate(settings, variant))


def number(value: float | int | None) -> float:
    """A number that JSON can hold, as it was."""
    return math.nan if value is None else float(value)


def measured_row(settings: CompareSettings, variant: Variant, seed: int) -> MeasuredRow:
    """Measures a checkpoint; base may have a growth.json of its own, which tells of no variant."""
    folder = model_folder(settings, variant, seed)
    checkpoint = open_checkpoint(folder)
    depths = count_stacks(checkpoint.config)
    growth = None if variant.is_original else read_growth(folder, *depths[::-1])
    sizes = growth.measurements["parameters"] if growth else {"before": checkpoint.parameters}
    # Where new layers are faded in, training starts from the original's function.
    start = original_folder(settings) if variant.mask else folder
    measured = evaluate(
        EvaluateSettings(
            str(start),
            text=settings.text,
            ppl_protocol=settings.ppl_protocol,
            sequence_length=settings.sequence_length,
        )
    )
    return MeasuredRow(
        layers=sum(depths),
        new_layers=through_stacks(growth.plan) if growth else (),
        parameters=checkpoint.parameters,
        new_parameters=checkpoint.parameters - sizes["before"],
        perplexity=measured["perplexity"],
        nll=measured["nll"],
        scores=task_scores(settings, start),
    )


def curve(settings: CompareSettings, run: TrainSettings, made_from: str) -> tuple[TrainedCurve | None, bool]:
    """Trains a model, or goes on with it, and scores it if it is exported; then its weights go.

    Args:
      settings: of the comparison.
      run: how the model is trained.
      made_from: the run's origin; an earlier run of another one goes.

    Returns:
      Its held-out losses, None if a signal stopped it; and whether a signal came, be it after its end.
    """
    prepare_run(run.output, made_from)
    result = train(run)
    if result.stopped:
        return None, True
    scores = task_scores(settings, run.output / FINAL) if run.keeping.export == "hf" else ()
    for weights in (FINAL, "checkpoints"):  # in this order: without checkpoints it would be no run's
        remove(run.output / weights)
    points = tuple(curve_points(run.output, result.cost.total))
    windows = tuple(Window(*window) for window in read_windows(run.output / WINDOWS, "eval_loss"))
    cost = result.cost
    return TrainedCurve(finite(cost.total), cost.backward_depth, points, windows, scores), result.interrupted


def run_settings(settings: CompareSettings, variant: Variant, seed: int, learning_rate: float) -> TrainSettings:
    """How one variant is trained."""
    training, length = settings.training, settings.sequence_length
    assert length is not None
    every = max(1, parse_count("--eval-every", training.eval_every) // (training.batch_size * length))
    return TrainSettings(
        model=str(model_folder(settings, variant, seed)),
        data=training_data(training, variant.replay),
        output=settings.output / RUNS / f"{variant.name}-{seed}",
        tokens=training.train_tokens,
        train=variant.trains,
        mask_steps=mask_steps(variant, whole_steps(settings)),
        seed=seed,
        batch=BatchSettings(batch_size=training.batch_size, sequence_length=length),
        optimizer=OptimizerSettings(learning_rate=learning_rate, optimizer=variant.optimizer),
        held_out=HeldOutSettings(
            eval_text=settings.text,
            retain_text=training.retain_text,
            eval_every=every,
            ppl_protocol=settings.ppl_protocol,
        ),
        keeping=KeepSettings(
            save_every=every,
            keep=1,
            token_cache=settings.output / "tokens",
            export="none" if settings.tasks is None else "hf",
        ),
    )


def whole_steps(settings: CompareSettings) -> int:
    """Of a training run."""
    training, length = settings.training, settings.sequence_length
    assert training.train_tokens is not None
    assert length is not None
    return max(1, parse_count("--train-tokens", training.train_tokens) // (training.batch_size * length))


def mask_steps(variant: Variant, steps: int) -> int:
    """In which new layers are faded in, in a run of so many; 0 where they are there from the start."""
    return max(1, round(variant.mask * steps)) if variant.mask else 0


def curve_points(output: Path, flops: float) -> list[Point]:
    """The evaluations of a run; seconds are those of training steps only, without compilation and measuring."""
    steps = read_metrics(output / METRICS)
    rates = [step["tokens_per_second"] for step in steps if step["tokens_per_second"]]
    typical = statistics.median(rates) if rates else math.nan  # where every step was measured, nobody knows
    points, seconds, before = [], 0.0, 0
    for step in steps:
        seconds += (step["tokens"] - before) / (step["tokens_per_second"] or typical)
        before = step["tokens"]
        if step["eval_loss"] is not None:
            points.append(Point(before, before * flops, seconds, step["eval_loss"], finite(step["retain_loss"])))
    return points
