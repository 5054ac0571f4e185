"""How fast grown models learn, and what they forget: the engine of convergence_books.py and convergence_tech.py.

All methods grow the model to half as many layers again, the new ones on top, and train on the same batches. First every
method's learning rate is chosen on short runs, then each seed trains at the chosen rate. Every finished run is appended
to a CSV file, and a run that stands there is not run again: the experiment may be stopped, continued on another day,
and split among processes by `--methods`. Yardstick: base trained in full with as many operations as the grown models.
"""

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convergence_report import write_report

from lesa_jax.base.units import parse_count
from lesa_jax.evaluation.run import evaluate
from lesa_jax.evaluation.settings import EvaluateSettings
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.tracking.log import METRICS, read_metrics
from lesa_jax.training.result import TrainResult
from lesa_jax.training.run import train
from lesa_jax.training.settings import BatchSettings, HeldOutSettings, KeepSettings, OptimizerSettings, TrainSettings

METHODS: dict[str, tuple[dict[str, Any] | None, str]] = {
    "LLaMA Pro": ({"method": "llama_pro", "placement": "top"}, "new"),
    "LESA": ({"method": "lesa_published"}, "new"),
    "LESA, previous norms": ({"method": "lesa_published", "norm_source": "previous"}, "new"),
    "duplicate": ({"method": "duplicate", "placement": "top"}, "new"),
    "SOLAR": ({"method": "solar"}, "new"),
    "SOLAR, all": ({"method": "solar"}, "all"),
    "base, all": (None, "all"),
}
YARDSTICK = "LLaMA Pro"  # whose operations base may spend
COLUMNS = ("method", "rate", "seed", "budget", "mflop", "tokens", "eval_loss", "other_loss")


@dataclass(frozen=True)
class Convergence:
    """What to compare, on which text."""

    model: Path
    data: Path
    eval_text: Path
    """Held-out text of the same domain."""
    other_text: Path
    """Measured once a run has ended: another part of the model's own domain, to see what was forgotten."""
    name: str
    """Of the results: experiments/results/convergence_NAME.csv, .md and .png."""
    methods: tuple[str, ...] = tuple(METHODS)
    tokens: str = "2M"
    seeds: tuple[int, ...] = (0, 1, 2)
    sweep_tokens: str = "100k"
    """Length of the runs that choose each method's learning rate."""
    rates: tuple[float, ...] = (3e-5, 1e-4, 3e-4, 1e-3)
    """Peak learning rates to choose from."""
    eval_every: str = "100k"
    """Tokens between evaluations."""
    eval_characters: int = 120_000
    """How much of --eval-text is measured."""
    other_characters: int = 600_000
    batch_size: int = 16
    sequence_length: int = 256
    work: Path = Path("build/convergence")
    """Grown models and runs."""
    results: Path = Path(__file__).parents[1] / "results"

    @property
    def csv(self) -> Path:
        return self.results / f"convergence_{self.name}.csv"


@dataclass(frozen=True)
class Run:
    """One training run; `budget` is the tokens that a grown model trains on, base as many operations."""

    method: str
    rate: float
    seed: int
    budget: int


BASE = Run("base", 0.0, 0, 0)  # as it is


def main(settings: Convergence) -> None:
    """Runs what is not yet in the CSV file; the table and the picture are written anew after each run."""
    settings.work.mkdir(parents=True, exist_ok=True)
    if BASE not in recorded(settings):
        append(settings, BASE, 0.0, [(0, measure(settings, settings.model, "eval"))], settings.model)
    sweep = parse_count("--sweep-tokens", settings.sweep_tokens)
    for method in settings.methods:
        for rate in settings.rates:
            ensure(settings, Run(method, rate, settings.seeds[0], sweep))
    for seed in settings.seeds:
        for method in settings.methods:
            rate = best_rate(settings, method, sweep)
            ensure(settings, Run(method, rate, seed, parse_count("--tokens", settings.tokens)))


def best_rate(settings: Convergence, method: str, sweep: int) -> float:
    """The rate whose short run ended lowest."""
    runs = recorded(settings)
    seed = settings.seeds[0]
    return min(settings.rates, key=lambda rate: float(runs[Run(method, rate, seed, sweep)][-1]["eval_loss"]))


def ensure(settings: Convergence, run: Run) -> None:
    if run not in recorded(settings):
        record(settings, run)
        write_report(settings.csv, caption(settings))


def recorded(settings: Convergence) -> dict[Run, list[dict[str, str]]]:
    """The finished runs in the CSV file."""
    runs: dict[Run, list[dict[str, str]]] = {}
    if settings.csv.exists():
        with settings.csv.open(newline="") as file:
            for row in csv.DictReader(file):
                run = Run(row["method"], float(row["rate"]), int(row["seed"]), int(row["budget"]))
                runs.setdefault(run, []).append(row)
    return runs


def record(settings: Convergence, run: Run) -> None:
    """Grows and trains one variant, or goes on with it, and appends its curve in a single write."""
    job = train_settings(settings, run)
    report = train(job)
    assert not report.stopped
    points = [
        (row["tokens"], row["eval_loss"]) for row in read_metrics(job.output / METRICS) if row["eval_loss"] is not None
    ]
    main = run.budget == parse_count("--tokens", settings.tokens)
    append(settings, run, token_mflop(report), points, job.output / "final" if main else None)


def append(settings: Convergence, run: Run, mflop: float, points: list[tuple[int, float]], final: Path | None) -> None:
    """Adds a curve to the CSV file; with its last point stands what `final` makes of the other text."""
    other = "" if final is None else f"{measure(settings, final, 'other'):.5f}"
    lines = "" if settings.csv.exists() else ",".join(COLUMNS) + "\n"
    for tokens, loss in points:
        last = other if tokens == points[-1][0] else ""
        lines += f'"{run.method}",{run.rate:g},{run.seed},{run.budget},{mflop:.2f},{tokens},{loss:.5f},{last}\n'
    with settings.csv.open("a") as file:
        file.write(lines)


def measure(settings: Convergence, model: Path, text: str) -> float:
    """Loss of a model on the excerpt of one of the two texts."""
    path, characters = getattr(settings, f"{text}_text"), getattr(settings, f"{text}_characters")
    excerpted = excerpt(settings, path, characters)
    job = EvaluateSettings(str(model), text=excerpted, sequence_length=settings.sequence_length)
    return evaluate(job)["nll"]


def train_settings(settings: Convergence, run: Run) -> TrainSettings:
    """How a variant is trained; base on as many tokens as cost what the yardstick costs."""
    job = variant(settings, run)
    if METHODS[run.method][0] is None:
        grown = train(replace(variant(settings, replace(run, method=YARDSTICK)), dry_run=True))
        own = train(replace(job, dry_run=True))
        job = replace(job, tokens=str(round(run.budget * token_mflop(grown) / token_mflop(own))))
    return job


def variant(settings: Convergence, run: Run) -> TrainSettings:
    """The run's settings, its model grown if it is not there yet."""
    growth, trained = METHODS[run.method]
    slug = "".join(c if c.isalnum() else "-" for c in run.method.lower())
    model = settings.model
    if growth is not None:
        model = settings.work / f"{slug}-{run.seed}"
        if not model.exists():
            options: dict[str, Any] = growth | ({"seed": run.seed} if growth["method"] == "lesa_published" else {})
            expand(ExpandSettings(str(settings.model), model, **options))
    every = max(1, parse_count("--eval-every", settings.eval_every) // (settings.batch_size * settings.sequence_length))
    return TrainSettings(
        model=str(model),
        data=str(settings.data),
        output=settings.work / f"{settings.name}-{slug}-{run.rate:g}-{run.seed}-{run.budget}",
        tokens=str(run.budget),
        train=trained,
        seed=run.seed,
        batch=BatchSettings(batch_size=settings.batch_size, sequence_length=settings.sequence_length),
        optimizer=OptimizerSettings(learning_rate=run.rate),
        held_out=HeldOutSettings(
            eval_text=excerpt(settings, settings.eval_text, settings.eval_characters), eval_every=every
        ),
        keeping=KeepSettings(save_every=every, keep=1, token_cache=settings.work / f"tokens-{settings.name}"),
    )


def excerpt(settings: Convergence, text: Path, characters: int) -> Path:
    """The first characters of a text, as a file."""
    path = settings.work / f"{text.stem}-{characters}.txt"
    if not path.exists():
        path.write_text(text.read_text(encoding="utf-8")[:characters], encoding="utf-8")
    return path


def token_mflop(report: TrainResult) -> float:
    return report.cost.total / 1e6


def caption(settings: Convergence) -> str:
    return (
        f"`experiments/convergence/convergence_{settings.name}.py`: `{settings.model.name}`, "
        f"data `{settings.data.name}`; windows of {settings.sequence_length} tokens, batch {settings.batch_size}; "
        f"perplexity on the first {settings.eval_characters:,} characters of `{settings.eval_text.name}`, and at the "
        f"end (other) on the first {settings.other_characters:,} of `{settings.other_text.name}`."
    )
