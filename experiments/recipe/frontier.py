"""What is learned against what is forgotten, recipe by recipe, at every rate: which start, optimiser and data win.

Command:   python experiments/recipe/frontier.py --model smollm2 --data new.txt --text new-val.txt
               --replay old.txt --retain-text old-val.txt --work work [--tokens 1M] [--seeds 3] [--recipes a,b]
           Several processes that are given the same command at a time share the runs; a run that is there is not made
           again. With --models only the models are grown and nothing is trained, say on a CPU beside a GPU whose
           processes are given --models elsewhere.
Run time:  on one H100 some 10 seconds a run of SmolLM2 (135M parameters, 1M tokens), and half a minute for each kind of
           program that is compiled.
Expected:  a JSON file for each run in WORK/runs; report.py beside this file makes tables and a picture of them.

All runs see the same number of tokens in the same order; what they cost in operations is beside them. The old domain's
text is in the training data only of the recipes with replay.
"""

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from filelock import FileLock, Timeout
from natural_start import natural_start

from lesa_jax.base.errors import InputError
from lesa_jax.base.units import parse_count
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.models.config import read_config
from lesa_jax.tracking.log import METRICS, read_metrics
from lesa_jax.training.lora import PREFIX, equal_rank
from lesa_jax.training.run import train
from lesa_jax.training.settings import (
    BatchSettings,
    HeldOutSettings,
    KeepSettings,
    OptimizerName,
    OptimizerSettings,
    TrainSettings,
)

LOW, MIDDLE, HIGH = (5e-5, 2e-4, 8e-4), (2e-4, 8e-4, 3.2e-3), (8e-4, 3.2e-3, 1.28e-2)


FURTHER = 2  # rates that are tried beyond a best one at an end
NATURAL_TOKENS = 16_384


@dataclass(frozen=True)
class Recipe:
    """A start, what is trained of it, and how.

    Attributes:
      growth: options of `lesa_jax.expand`; None for the original model.
      rates: learning rates that are tried; more where the best is at an end.
      train: as --train; "top" for the upper half of the original's layers, "lora" for adapters with as many numbers as
        half as many layers again have.
      optimizer, output_rate, new_rate: as the options.
      replay: share of the old domain's text in the training data.
      natural: whether silenced outputs begin with a natural-gradient step on the data's first tokens.
    """

    growth: dict[str, Any] | None
    rates: tuple[float, ...]
    train: str = "new"
    optimizer: OptimizerName = "adamw"
    output_rate: float = 1.0
    replay: float = 0.0
    new_rate: float = 1.0
    natural: bool = False


EVEN, TOP = {"method": "llama_pro"}, {"method": "identity"}
RECIPES = {
    "base": Recipe(None, LOW, "all"),
    "LLaMA Pro": Recipe(EVEN, MIDDLE),
    "copies on top": Recipe(TOP, MIDDLE),
    "copies on top, Muon": Recipe(TOP, HIGH, optimizer="muon"),
    "LESA": Recipe({"method": "lesa_published"}, MIDDLE),
    "SOLAR": Recipe({"method": "solar"}, LOW, "all"),
    "LLaMA Pro, Muon": Recipe(EVEN, HIGH, optimizer="muon"),
    "base, upper half": Recipe(None, LOW, "top"),
    "copies on top, Muon for outputs": Recipe(TOP, HIGH, optimizer="muon-outputs"),
    "base, Muon": Recipe(None, LOW, "all", optimizer="muon"),
    "LESA without SVD": Recipe({"method": "lesa_raw"}, MIDDLE),
    "base, replay": Recipe(None, LOW, "all", replay=0.1),
    "LLaMA Pro, replay": Recipe(EVEN, MIDDLE, replay=0.1),
    "copies on top, Muon, replay": Recipe(TOP, HIGH, optimizer="muon", replay=0.1),
    "OpT-DeUS": Recipe({"method": "opt_deus"}, MIDDLE),
    "copies on top, outputs x4": Recipe(TOP, MIDDLE, output_rate=4.0),
    "base, upper half, Muon": Recipe(None, LOW, "top", optimizer="muon"),
    "LESA, Muon": Recipe({"method": "lesa_published"}, HIGH, optimizer="muon"),
    "LESA as loud as it is right": Recipe({"method": "lesa"}, MIDDLE),
    "base, LoRA": Recipe(None, MIDDLE, "lora"),
    "base, LoRA, replay": Recipe(None, MIDDLE, "lora", replay=0.1),
    "LLaMA Pro, everything": Recipe(EVEN, LOW, "all"),
    "LLaMA Pro, everything, new x4": Recipe(EVEN, LOW, "all", new_rate=4.0),
    "LLaMA Pro, everything, new x16": Recipe(EVEN, LOW, "all", new_rate=16.0),
    "LLaMA Pro, everything, new x16, replay": Recipe(EVEN, LOW, "all", new_rate=16.0, replay=0.1),
    "LLaMA Pro, natural step": Recipe(EVEN, MIDDLE, natural=True),
}


@dataclass(frozen=True)
class Settings:
    """What is grown, on what it is trained, and how long."""

    model: Path
    data: Path
    text: Path
    replay: Path
    retain_text: Path
    work: Path
    tokens: str = "1M"
    batch_size: int = 8
    sequence_length: int = 1024
    seeds: int = 1
    """Of the best rate of each recipe; all rates are tried with the first one."""
    recipes: str = "all"
    """Names with semicolons."""
    layers: int | None = None
    evaluations: int = 3
    minutes: float | None = None
    """No run begins later."""
    first: int = 0
    """Which of the recipes a process begins with."""
    models: Literal["here", "only", "elsewhere"] = "here"
    """Whether this process grows them: when they are needed, all of them and nothing else, or never."""


@dataclass(frozen=True)
class Run:
    """One training run."""

    recipe: str
    rate: float
    seed: int

    @property
    def slug(self) -> str:
        words = "".join(c if c.isalnum() else "-" for c in self.recipe.lower())
        return f"{words}-{self.rate:g}-{self.seed}"


def main(settings: Settings) -> None:
    begun = time.monotonic()
    names = list(RECIPES) if settings.recipes == "all" else [name.strip() for name in settings.recipes.split(";")]
    names = names[settings.first :] + names[: settings.first]
    (settings.work / "runs").mkdir(parents=True, exist_ok=True)
    if settings.models == "only":
        for name in names:
            grown(settings, RECIPES[name])
        return
    jax.config.update("jax_compilation_cache_dir", str(settings.work / "programs"))
    while (todo := [run for name in names for run in missing(settings, name)]) and not late(settings, begun):
        if not any(attempt(settings, run) for run in todo if not late(settings, begun)):
            time.sleep(2)  # what is left is being grown or trained by another process


def late(settings: Settings, begun: float) -> bool:
    return settings.minutes is not None and time.monotonic() - begun > 60 * settings.minutes


def missing(settings: Settings, name: str) -> list[Run]:
    """Runs of a recipe that are not there: all its rates first, one more beyond the best, then the other seeds."""
    rates, best = RECIPES[name].rates, None
    for _ in range(1 + FURTHER):
        ends = {rate: ending(settings, Run(name, rate, 0)) for rate in rates}
        if absent := [rate for rate, end in ends.items() if end is None]:
            return [Run(name, rate, 0) for rate in absent]
        best = min(rates, key=lambda rate: ends[rate] or 0.0)
        if min(rates) < best < max(rates):
            break
        rates = (*rates, best * 4 if best == max(rates) else best / 4)
    assert best is not None
    runs = [Run(name, best, seed) for seed in range(1, settings.seeds)]
    return [run for run in runs if ending(settings, run) is None]


def ending(settings: Settings, run: Run) -> float | None:
    """The new domain's loss at the end of a run; None if it is not there."""
    file = settings.work / "runs" / f"{run.slug}.json"
    if not file.exists():
        return None
    loss = json.loads(file.read_text())["points"][-1]["eval_loss"]
    return float("inf") if loss is None else loss


def attempt(settings: Settings, run: Run) -> bool:
    """Makes a run unless another process does, or its model is not there yet; returns whether it is there now."""
    recipe = RECIPES[run.recipe]
    try:
        with FileLock(settings.work / "runs" / f".{run.slug}.lock", blocking=False):
            if ending(settings, run) is not None:
                return True
            model = started(settings, recipe)
            if model is None:
                return False
            record(settings, run, recipe, model)
            return True
    except Timeout:
        return False


def grown(settings: Settings, recipe: Recipe) -> Path | None:
    """The recipe's model; None if it is grown elsewhere and not there yet."""
    if recipe.growth is None:
        return settings.model
    folder = settings.work / "models" / "-".join(str(value) for value in recipe.growth.values())
    folder.parent.mkdir(exist_ok=True)
    if settings.models == "elsewhere":
        return folder if folder.exists() else None
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            options: dict[str, Any] = {"layers": settings.layers, **recipe.growth}
            expand(ExpandSettings(str(settings.model), folder, **options))
    return folder


def started(settings: Settings, recipe: Recipe) -> Path | None:
    """What the recipe trains: its model, with the natural step if it has one."""
    model = grown(settings, recipe)
    if model is None or not recipe.natural:
        return model
    folder = model.with_name(f"{model.name}-natural")
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            with settings.data.open(encoding="utf-8") as file:
                natural_start(model, file.read(16 * NATURAL_TOKENS), folder, NATURAL_TOKENS)
    return folder


def record(settings: Settings, run: Run, recipe: Recipe, model: Path) -> None:
    """Trains, and writes the curve down."""
    started = time.monotonic()
    job = train_settings(settings, run, recipe, model)
    points: list[dict[str, Any]] = []
    cost, error = {}, None
    try:
        result = train(job)
        if result.interrupted:
            raise SystemExit(f"interrupted: {run.slug} is made again by the same command")
        cost = {**asdict(result.cost), "total": result.cost.total, "trained": result.trained}
    except InputError as failure:  # it diverged: that is its result
        error = str(failure)
    shutil.rmtree(job.output / "checkpoints", ignore_errors=True)
    for row in read_metrics(job.output / METRICS):
        if row["eval_loss"] is not None:
            points.append({key: row[key] for key in ("tokens", "eval_loss", "retain_loss")})
    if error is not None:
        points.append({"tokens": None, "eval_loss": None, "retain_loss": None})
    speeds = sorted(row["tokens_per_second"] for row in read_metrics(job.output / METRICS) if row["tokens_per_second"])
    value = {
        **asdict(run),
        **asdict(recipe),
        "cost": cost,
        "points": points,
        "tokens_per_second": speeds[len(speeds) // 2] if speeds else None,
        "seconds": time.monotonic() - started,
        "device": jax.devices()[0].device_kind,
        "error": error,
    }
    (settings.work / "runs" / f"{run.slug}.json").write_text(json.dumps(value) + "\n")


def train_settings(settings: Settings, run: Run, recipe: Recipe, model: Path) -> TrainSettings:
    config = read_config(json.loads((settings.model / "config.json").read_text()))
    layers = config.num_layers
    upper = "|".join(str(layer) for layer in range(layers // 2, layers))
    scope = {"top": rf"layers\.({upper})\.", "lora": f"{PREFIX}{equal_rank(config, layers // 2)}"}
    data = str(settings.data)
    if recipe.replay:
        data = f"{data}:{1 - recipe.replay:g},{settings.replay}:{recipe.replay:g}"
    steps = parse_count("--tokens", settings.tokens) // (settings.batch_size * settings.sequence_length)
    return TrainSettings(
        model=str(model),
        data=data,
        output=settings.work / "trained" / run.slug,
        steps=steps,
        train=scope.get(recipe.train, recipe.train),
        seed=run.seed,
        batch=BatchSettings(batch_size=settings.batch_size, sequence_length=settings.sequence_length),
        optimizer=OptimizerSettings(
            optimizer=recipe.optimizer,
            learning_rate=run.rate,
            output_rate=recipe.output_rate,
            new_rate=recipe.new_rate,
        ),
        held_out=HeldOutSettings(
            eval_text=settings.text,
            retain_text=settings.retain_text,
            eval_every=-(-steps // settings.evaluations),
        ),
        keeping=KeepSettings(save_every=10**6, keep=1, token_cache=settings.work / "tokens", export="none"),
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
