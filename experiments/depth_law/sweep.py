"""What depth is worth to small Llamas, by law, and whether a model that is grown to a depth gets what it is worth.

Command:   python experiments/depth_law/sweep.py --data books.txt --text books-val.txt --output build/sweep
Run time:  in proportion to layers and tokens; the defaults, 92 runs, are for a GPU. Stopped runs go on when the command
           is given again, and finished ones are not run again. With --depths 2 3 4 6 8 --bases 2 4 --seeds 3
           --width 32 --vocabulary 512 --tokens 5M --shares 0.25 --batch-size 16 --rates 4e-3 --grown-rates 2e-3, as in
           the table that is kept, it is two hours of a core.
Expected:  experiments/results/depth_sweep_NAME.csv, .md and .png.

Models that differ in depth alone are trained from nothing on the same batches, far past 20 tokens a parameter; L(l) =
c l^-a + L0 is fitted to their held-out losses. Then models of `bases` layers are grown to twice as many, a silenced
copy above each layer, and trained on further tokens, the new layers or all; beside them the base is trained on as it
is, so that one sees what is owed to depth. Their losses are held against the law's at the depth that they were grown
to, and their operations against those of training this depth from nothing. Of several rates the best counts.
"""

import shutil
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import tyro
from sweep_report import write_report
from sweep_runs import GROWN, NEW, ON, SCRATCH, Row, Run, best

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import deciding, free
from lesa_jax.base.units import parse_count
from lesa_jax.base.work_folder import Work
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.training.run import train
from lesa_jax.training.settings import BatchSettings, TrainSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "beds"))  # experiments/ is no package

import saturated  # pyright: ignore[reportMissingImports]
from records import append, recorded, without_results  # pyright: ignore[reportMissingImports]

FURTHER = 1000  # added to a seed: further tokens come in another order than those before
SWEEP = Work("sweep", "sweep.json", "no sweep over depths", frozenset({"tokenizer"}))


@dataclass(frozen=True)
class Settings:
    """Which models, on which text, and for how long."""

    data: Path
    text: Path
    """Held-out text, whose loss is compared."""
    output: Path = free(Path("build/sweep"))
    """Models, runs, and the list of those that are finished."""
    name: str = free("books")
    """Of the results: experiments/results/depth_sweep_NAME.csv, .md and .png."""
    depths: tuple[int, ...] = free((2, 4, 8, 16, 32))
    bases: tuple[int, ...] = free((4, 8))
    """Depths that are grown to twice as many layers, which must be among `depths`."""
    seeds: int = free(2)
    width: int = 48
    vocabulary: int = 1024
    tokens: str = "100M"
    """Of a model from nothing."""
    shares: tuple[float, ...] = free((0.125, 0.25, 0.5))
    """Of these tokens, that grown models are trained on; each is a run with a schedule of its own."""
    batch_size: int = 64
    rates: tuple[float, ...] = (2e-3, 4e-3)
    grown_rates: tuple[float, ...] = (1e-3, 4e-3)
    results: Path = free(Path(__file__).parents[1] / "results")

    @property
    def runs(self) -> Path:
        """The list of finished runs."""
        return self.output / "runs.csv"


def main(settings: Settings) -> None:
    """Runs what is not finished yet, models from nothing first, and writes the report."""
    check(settings)
    saturated.make_tokenizer(bed(settings))
    for planned in (scratch_runs, grown_runs):
        for run in planned(settings):
            if run not in (done := finished(settings)):
                append(settings.runs, row_of(settings, run, done))
    rows = list(finished(settings).values())
    about = (
        f"`experiments/depth_law/sweep.py`: Llamas of width {settings.width}, {settings.vocabulary} tokens, trained on "
        f"{settings.tokens} tokens of `{settings.data.name}`; loss on `{settings.text.name}` in nats a token."
    )
    settings.results.mkdir(parents=True, exist_ok=True)
    table = settings.results / f"depth_sweep_{settings.name}.md"
    print(write_report(table, about, rows))
    shutil.copyfile(settings.runs, table.with_suffix(".csv"))


def check(settings: Settings) -> None:
    """Refuses sweeps that no law or no comparison can come of, and another sweep's folder."""
    missing = [base for base in settings.bases if not {base, 2 * base} <= {*settings.depths}]
    if missing:
        raise InputError(f"--bases {missing[0]}: needs {missing[0]} and {2 * missing[0]} among --depths")
    if settings.seeds * len(settings.depths) < 4 or len(settings.depths) < 3:
        raise InputError("--depths: a law of depth needs at least three of them, and four runs with --seeds")
    SWEEP.begin(settings.output, deciding(settings))


def bed(settings: Settings) -> saturated.Settings:
    """The same as the bed of saturated.py has it."""
    return saturated.Settings(
        settings.data,
        settings.text,
        settings.output,
        settings.depths,
        settings.width,
        settings.vocabulary,
        settings.tokens,
    )


def scratch_runs(settings: Settings) -> list[Run]:
    """Shallow models first, which are soon done."""
    tokens = parse_count("--tokens", settings.tokens)
    return [
        Run(SCRATCH, 0, depth, tokens, rate, seed)
        for depth in sorted(settings.depths)
        for seed in range(settings.seeds)
        for rate in settings.rates
    ]


def grown_runs(settings: Settings) -> list[Run]:
    tokens = parse_count("--tokens", settings.tokens)
    return [
        Run(way, base, base if way == ON else 2 * base, round(share * tokens), rate, seed)
        for base in sorted(settings.bases)
        for share in sorted(settings.shares)
        for way in GROWN
        for seed in range(settings.seeds)
        for rate in settings.grown_rates
    ]


def finished(settings: Settings) -> dict[Run, Row]:
    return {without_results(row, Run): row for row in recorded(settings.runs, Row)}


def row_of(settings: Settings, run: Run, done: dict[Run, Row]) -> Row:
    """Trains, or trains on to the end."""
    job = train_settings(settings, run, done)
    result = train(job)
    if result.stopped:
        raise SystemExit("stopped; the same command goes on")
    shutil.rmtree(job.output / "checkpoints", ignore_errors=True)
    flops = result.cost.total * result.tokens
    row = Row(**asdict(run), parameters=result.trained + result.frozen, flops=flops, loss=result.losses["eval_loss"][1])
    print(f"{run.way}, {run.layers} layers, seed {run.seed}, rate {run.rate:g}: {row.loss:.4f}", flush=True)
    return row


def train_settings(settings: Settings, run: Run, done: dict[Run, Row]) -> TrainSettings:
    """The options of a run; of a grown one the model is made here if it is not there yet."""
    common = saturated.train_settings(bed(settings), run.layers)
    common = replace(
        common,
        tokens=str(run.tokens),
        output=settings.output / "runs" / run.slug,
        seed=run.seed if run.way == SCRATCH else run.seed + FURTHER,
        batch=BatchSettings(batch_size=settings.batch_size, sequence_length=256),
        optimizer=replace(common.optimizer, learning_rate=run.rate),
        held_out=replace(common.held_out, eval_every=10**6),  # at the beginning and at the end
    )
    if run.way == SCRATCH:
        return common
    model = base_model(settings, run, done)
    if run.way != ON:
        model = grown(settings, run, model)
    return replace(common, init="checkpoint", config=None, model=str(model), train="new" if run.way == NEW else "all")


def base_model(settings: Settings, run: Run, done: dict[Run, Row]) -> Path:
    """The model from nothing with the run's seed, at the rate that is best for its depth."""
    rows = [row for row in done.values() if row.way == SCRATCH and row.layers == run.base]
    own = next(row for row in best(rows) if row.seed == run.seed)
    return settings.output / "runs" / own.slug / "final"


def grown(settings: Settings, run: Run, model: Path) -> Path:
    """With a silenced copy above each layer."""
    folder = settings.output / "grown" / f"{run.base}-{run.layers}-{run.seed}"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        expand(ExpandSettings(str(model), folder, method="llama_pro", layers=run.layers))
    return folder


if __name__ == "__main__":
    main(tyro.cli(Settings))
