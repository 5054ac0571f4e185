"""Growth of models whose layers differ in size: the models of `layerwise.py`, each made half as deep again.

Command:   python experiments/layerwise/layerwise_grow.py, with the options of `layerwise.py`, which comes first
Run time:  a few minutes of a core for each model at 140,000 parameters. What is in OUTPUT/grown.csv is not run again.
Expected:  experiments/results/layerwise_grown_NAME.csv and .md, renewed after every run.

Each profile's models of plain norms grow by silenced copies: with the sizes of what they copy, and with those that lie
between the layers around them (`expand --keep-profile`). New layers are trained on further tokens; beside them stands
the model trained on as it is, all of it, on the same batches. LESA wants a run of three like layers, which the
isotropic model alone has.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import layerwise
import numpy as np
import tyro
from layerwise_runs import CLEAN, PLAIN, Row, Run, best

from lesa_jax.base.files import write_text
from lesa_jax.base.settings import free
from lesa_jax.base.units import parse_count
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.training.run import train
from lesa_jax.training.settings import TrainSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "beds"))  # experiments/ is no package

from records import append, recorded, without_results  # pyright: ignore[reportMissingImports]

ON, OWN, KEPT, LESA = "trained on", "copies", "copies, profile kept", "LESA"
FURTHER = 1000  # added to a seed: further tokens come in another order than those before


@dataclass(frozen=True)
class Settings(layerwise.Settings):
    """Those of the models, and how they grow."""

    deeper: int = free(27)
    """Layers after growth."""
    share: float = free(0.25)
    """Of the tokens that a model was trained on, for its new layers."""
    new_rate: float = free(4e-3)
    on_rate: float = free(1e-3)
    """Of the model trained on, which has been at zero."""


@dataclass(frozen=True)
class Grown:
    """A finished run; `before` and `after` are losses on text without and with the further tokens."""

    profile: str
    way: str
    seed: int
    parameters: int
    new_parameters: int
    before: float
    after: float


def main(settings: Settings) -> None:
    layerwise.begin(settings)
    file = settings.output / "grown.csv"
    for row in models(settings):
        for way in ways(row.profile):
            done = recorded(file, Grown)
            if not any((own.profile, own.way, own.seed) == (row.profile, way, row.seed) for own in done):
                append(file, grown_row(settings, row, way))
                show(settings, recorded(file, Grown))
    show(settings, recorded(file, Grown))


def models(settings: Settings) -> list[Row]:
    """Of each profile those of its best rate, at the first of --saturations."""
    found = []
    for profile in settings.profiles:
        group = (CLEAN, settings.saturations[0], PLAIN, profile)
        own = [row for row in layerwise.rows(settings) if row.group == group]
        if not own:
            raise SystemExit(f"{settings.runs} has no {profile} model yet: run layerwise.py first")
        found += best(own)[: settings.seeds]
    return sorted(found, key=lambda row: row.seed)


def ways(profile: str) -> tuple[str, ...]:
    return (ON, OWN, LESA) if profile == "isotropic" else (ON, OWN, KEPT)


def grown_row(settings: Settings, row: Row, way: str) -> Grown:
    """Grows a model, trains it on, and measures it."""
    base = base_model(settings, without_results(row, Run))
    slug = f"{row.profile}-{way.replace(',', '').replace(' ', '-')}-{row.seed}"
    folder, run = (settings.output / name / slug for name in ("grown", "grown-runs"))
    model = base if way == ON else folder
    if way != ON and not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        method = "lesa" if way == LESA else "llama_pro"
        expand(ExpandSettings(str(base), folder, method=method, layers=settings.deeper, keep_profile=way == KEPT))
    before = measured(settings, model)
    result = train(train_settings(settings, row, way, model, run))
    if result.stopped or result.final is None:
        raise SystemExit("stopped; the same command goes on")
    after = measured(settings, Path(result.final))
    shutil.rmtree(run)
    print(f"{slug}: {before:.4f} -> {after:.4f}", flush=True)
    parameters = result.trained + result.frozen
    return Grown(row.profile, way, row.seed, parameters, parameters - row.parameters, before, after)


def base_model(settings: Settings, run: Run) -> Path:
    """The trained model, made again where it was not kept."""
    folder = settings.output / "runs" / run.slug / "final"
    if not (folder / "config.json").exists():
        layerwise.row_of(settings, run)
    return folder


def train_settings(settings: Settings, row: Row, way: str, model: Path, output: Path) -> TrainSettings:
    common = layerwise.train_settings(settings, without_results(row, Run))
    tokens = round(settings.share * row.saturation * parse_count("--parameters", settings.parameters))
    rate = settings.on_rate if way == ON else settings.new_rate
    return replace(
        common,
        init="checkpoint",
        config=None,
        profile=None,
        parameters=None,
        model=str(model),
        train="all" if way == ON else "new",
        tokens=str(tokens),
        output=output,
        seed=row.seed + FURTHER,
        optimizer=replace(common.optimizer, learning_rate=rate),
    )


def measured(settings: Settings, model: Path) -> float:
    return layerwise.held_out_scores(settings, model, CLEAN)["text_loss"]


def show(settings: Settings, rows: Sequence[Grown]) -> None:
    """Writes the table of what there is."""
    about = (
        f"`experiments/layerwise/layerwise_grow.py`: the models of [layerwise_{settings.name}.md]"
        f"(layerwise_{settings.name}.md) with {settings.layers} layers, grown to {settings.deeper}; new layers trained "
        f"at {settings.new_rate:g} on {settings.share:.0%} of the tokens that the model has seen, further ones. "
        f"Trained on: the model as it is, all of it, at {settings.on_rate:g}. Losses in nats a token, means over seeds."
    )
    lines = ["| profile | way | new parameters | before | after, by seed | after |", "|---|---|---|---|---|---|"]
    for profile in settings.profiles:
        for way in ways(profile):
            own = [row for row in rows if (row.profile, row.way) == (profile, way)]
            if own:
                losses = ", ".join(f"{row.after:.4f}" for row in own)
                before, after = (np.mean([getattr(row, name) for row in own]) for name in ("before", "after"))
                lines.append(
                    f"| {profile} | {way} | {own[0].new_parameters:,} | {before:.4f} | {losses} | {after:.4f} |"
                )
    settings.results.mkdir(parents=True, exist_ok=True)
    table = settings.results / f"layerwise_grown_{settings.name}.md"
    write_text(table, "\n\n".join([about, "\n".join(lines)]) + "\n")
    shutil.copyfile(settings.output / "grown.csv", table.with_suffix(".csv"))


if __name__ == "__main__":
    main(tyro.cli(Settings))
