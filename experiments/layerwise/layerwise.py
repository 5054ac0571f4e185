"""Whether layers of different sizes pay: five profiles with equally many parameters, trained from nothing.

Command:   python experiments/layerwise/layerwise.py --data books.txt --text books-val.txt --output build/layerwise
Run time:  in proportion to parameters and tokens; the defaults, of 3.2M parameters, are for a GPU. Stopped runs go on
           when the command is given again, and what is in OUTPUT/runs.csv is not run again.
Expected:  experiments/results/layerwise_NAME.csv, .md and .png, renewed after every run.

After "Layer-wise scaling" (arXiv 2509.06518): sizes of feed-forward networks and numbers of heads change over depth,
in five ways (`lesa_jax.profile`), at an equal budget. Each profile is trained at several rates, and at its best one
with further seeds; runs of one seed see the same batches, so that a profile is held against the isotropic one seed by
seed. A second axis is LayerNorm Scaling. The third is the paper's own defect: tokens saved as int32 and read as
uint16, so that every second one is zero.
"""

import shutil
import sys
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from layerwise_data import misread, tokens_of, windows, word_tokenizer, write_tokens
from layerwise_measure import measured
from layerwise_report import write_report
from layerwise_runs import CLEAN, DEFECT, NORMS, PLAIN, Row, Run, best, sweep

from lesa_jax.base.files import write_json
from lesa_jax.base.settings import deciding, free
from lesa_jax.base.units import parse_count
from lesa_jax.base.work_folder import Work
from lesa_jax.checkpoint.tokenizer import load_tokenizer
from lesa_jax.profiles.named import PROFILES
from lesa_jax.training.run import train
from lesa_jax.training.settings import (
    BatchSettings,
    HeldOutSettings,
    KeepSettings,
    OptimizerSettings,
    ProfileName,
    TrainSettings,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "beds"))  # experiments/ is no package

import saturated  # pyright: ignore[reportMissingImports]
from records import append, recorded, without_results  # pyright: ignore[reportMissingImports]

WORK = Work("experiment", "layerwise.json", "no experiment on profiles", frozenset({"tokenizer"}))
COUNTED = 5_000_000  # tokens of the training text that say how frequent each is


@dataclass(frozen=True)
class Settings:
    """Which models, on which text, and for how long."""

    data: Path
    text: Path
    """Held-out text, whose loss is compared."""
    output: Path = free(Path("build/layerwise"))
    """Models, runs, and the list of those that are finished."""
    name: str = free("books")
    """Of the results: experiments/results/layerwise_NAME.csv, .md and .png."""
    layers: int = 18
    width: int = 128
    head_dim: int = 16
    vocabulary: int = 1024
    parameters: str = "3.2M"
    saturations: tuple[int, ...] = free((20, 100))
    """Tokens a parameter."""
    rates: tuple[float, ...] = free((2e-3, 4e-3, 8e-3))
    profiles: tuple[str, ...] = free(tuple(PROFILES))
    norms: tuple[str, ...] = free(tuple(NORMS))
    seeds: int = free(3)
    batch_size: int = 32
    sequence_length: int = 256
    held_out: str = "500k"
    """Tokens of --text that are predicted."""
    results: Path = free(Path(__file__).parents[1] / "results")

    @property
    def runs(self) -> Path:
        """The list of finished runs."""
        return self.output / "runs.csv"


def main(settings: Settings) -> None:
    """Runs what is not finished yet."""
    begin(settings)
    for group in groups(settings):
        # The best rate, and with it what else is to be run, is known only when all have been tried.
        while rest := [run for run in planned(settings, group) if run not in finished(settings)]:
            append(settings.runs, row_of(settings, rest[0]))
            show(settings)
    show(settings)


def begin(settings: Settings) -> None:
    """Makes the folder with the tokenizer; refuses another experiment's."""
    WORK.begin(settings.output, deciding(settings))
    saturated.make_tokenizer(
        saturated.Settings(settings.data, settings.text, settings.output, vocabulary=settings.vocabulary)
    )


def groups(settings: Settings) -> list[Run]:
    """What is compared, each with a rate of its own; the shorter runs first, of these those of plain norms."""
    found = []
    for saturation in settings.saturations:
        found += [Run(name, norm, CLEAN, saturation, 0.0, 0) for norm in settings.norms for name in settings.profiles]
        if saturation == settings.saturations[0]:
            found += [Run(name, PLAIN, DEFECT, saturation, 0.0, 0) for name in settings.profiles]
    return found


def planned(settings: Settings, group: Run) -> list[Run]:
    """The runs of a group. With the defect there is one: at the rate that is best without."""
    if group.data == DEFECT:
        clean = replace(group, data=CLEAN).group
        return [replace(group, rate=best(row for row in rows(settings) if row.group == clean)[0].rate)]
    return sweep(group, settings.rates, settings.seeds, rows(settings))


def rows(settings: Settings) -> list[Row]:
    return recorded(settings.runs, Row)


def finished(settings: Settings) -> set[Run]:
    return {without_results(row, Run) for row in rows(settings)}


def row_of(settings: Settings, run: Run) -> Row:
    """Trains a model, or trains on to the end, and measures it."""
    job = train_settings(settings, run)
    result = train(job)
    if result.stopped or result.final is None:
        raise SystemExit("stopped; the same command goes on")
    found = held_out_scores(settings, Path(result.final), run.data)
    row = Row(**(asdict(run) | found), parameters=result.trained)
    print(f"{run.slug}: {row.text_loss:.4f}", flush=True)
    shutil.rmtree(job.output / "checkpoints", ignore_errors=True)
    return row


def held_out_scores(settings: Settings, model: Path, data: str) -> dict[str, Any]:
    """What a model makes of the held-out text, with the defect or without."""
    tokens, counts = text_tokens(settings)
    defect = data == DEFECT
    seen = misread(tokens[: len(tokens) // 2]) if defect else tokens
    return measured(model, windows(seen, settings.sequence_length), counts, 2 if defect else 1)


@cache
def text_tokens(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """The held-out tokens, and how often each token occurs in training; the same for every model."""
    tokenizer = load_tokenizer(settings.output / "tokenizer")
    tokens = tokens_of(settings.text, tokenizer, parse_count("--held-out", settings.held_out))
    return tokens, np.bincount(tokens_of(settings.data, tokenizer, COUNTED), minlength=settings.vocabulary)


def train_settings(settings: Settings, run: Run) -> TrainSettings:
    """The options of a run."""
    profile: ProfileName = run.profile  # pyright: ignore[reportAssignmentType]
    init = NORMS[run.norm]
    tokens = run.saturation * parse_count("--parameters", settings.parameters)
    return TrainSettings(
        init=init,  # pyright: ignore[reportArgumentType]
        config=config_file(settings, run.data, tokens),
        profile=profile,
        parameters=settings.parameters,
        train="all",
        data=str(data_file(settings, run.data)),
        output=settings.output / "runs" / run.slug,
        tokens=str(tokens),
        seed=run.seed,
        batch=BatchSettings(batch_size=settings.batch_size, sequence_length=settings.sequence_length),
        optimizer=OptimizerSettings(learning_rate=run.rate),
        held_out=HeldOutSettings(hold_out=0),
        keeping=KeepSettings(save_every=500, keep=1, token_cache=settings.output / "tokens", tracker="jsonl"),
    )


def data_file(settings: Settings, data: str) -> Path:
    return settings.data if data == CLEAN else settings.output / "defect.txt"


def config_file(settings: Settings, data: str, tokens: int) -> Path:
    """config.json with the tokenizer beside it; with the defect's come the tokens that it reads."""
    folder = settings.output / "configs" / data
    if not folder.exists():
        folder.mkdir(parents=True)
        clean: Any = load_tokenizer(settings.output / "tokenizer")
        if data == DEFECT:
            write_tokens(data_file(settings, data), misread(tokens_of(settings.data, clean, tokens)))
            word_tokenizer(settings.vocabulary).save_pretrained(folder)
        else:
            clean.save_pretrained(folder)
        write_json(folder / "config.json", base_config(settings))
    return folder / "config.json"


def base_config(settings: Settings) -> dict[str, object]:
    """Of the isotropic model, whose sizes are the profiles' to change."""
    heads = settings.width // settings.head_dim
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": settings.width,
        "intermediate_size": settings.width * 5 // 2,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": settings.head_dim,
        "max_position_embeddings": settings.sequence_length,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": settings.vocabulary,
        "tie_word_embeddings": True,
        "ffn_dim_divisor": 8,
        "dtype": "float32",
    }


def show(settings: Settings) -> None:
    """Writes table and picture of what there is."""
    about = (
        f"`experiments/layerwise/layerwise.py`: {settings.layers} layers of width {settings.width} (heads of "
        f"{settings.head_dim}, {settings.vocabulary} tokens, tied), {settings.parameters} parameters each, trained on "
        f"`{settings.data.name}` in batches of {settings.batch_size} x {settings.sequence_length}; losses on "
        f"{settings.held_out} tokens of `{settings.text.name}`, nats a token."
    )
    settings.results.mkdir(parents=True, exist_ok=True)
    table = settings.results / f"layerwise_{settings.name}.md"
    write_report(table, about, rows(settings))
    shutil.copyfile(settings.runs, table.with_suffix(".csv"))


if __name__ == "__main__":
    main(tyro.cli(Settings))
