"""A mixture of experts grown in depth: what becomes of its routers, and of its perplexity.

Command:   python experiments/mixture.py --data books-cpt.txt --eval-text books-val.txt
Run time:  about 80 minutes on one CPU core, half of them for the model, a small Mixtral trained here from scratch. A
           stopped experiment goes on where it was.
Expected:  experiments/results/mixture_books.md.

The model grows to half as many layers again, the new ones on top, in the ways of `WAYS`; then the new layers alone are
trained on the same batches. (d) is the published failure: experts predicted number by number from unrelated ones behind
a router that is copied (arXiv 2502.13794 has 7.70 -> 1923 of a large model). Every finished row is kept in a CSV file.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lesa_jax.base.files import write_json, write_text
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.evaluation.run import evaluate
from lesa_jax.evaluation.sample import sample_rows
from lesa_jax.evaluation.settings import EvaluateSettings
from lesa_jax.growth.routers import check_routers
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.models.config import read_model
from lesa_jax.planning.record import read_growth
from lesa_jax.training.run import train
from lesa_jax.training.settings import BatchSettings, HeldOutSettings, KeepSettings, OptimizerSettings, TrainSettings

END = "<|endoftext|>"
FITTED, BY_TOKENS = {"fit_routers": True}, {"match_experts": True}
WAYS: dict[str, dict[str, Any]] = {
    "(a) silenced copies": {"method": "identity"},
    "(b) experts matched, predicted with their routers": {"method": "lesa_matched"},
    "(b) experts matched, the mean with their routers": {"method": "average_matched"},
    "(b) experts matched by tokens, predicted with their routers": {"method": "lesa_matched", **BY_TOKENS},
    "(b) experts matched by tokens, the mean with their routers": {"method": "average_matched", **BY_TOKENS},
    "(c) experts matched and predicted, routers fitted": {"method": "lesa_matched", **FITTED},
    "(c) experts matched, their mean, routers fitted": {"method": "average_matched", **FITTED},
    "(d) predicted by number, router copied": {"method": "lesa_published", "norm_source": "previous"},
    "the mean by number, router copied": {"method": "average", "norm_source": "previous"},
}
COLUMNS = ("way", "start", "trained", "entropy_made", "entropy_start", "entropy_trained")


@dataclass(frozen=True)
class MixtureSettings:
    """What to train, and on which text."""

    data: Path
    eval_text: Path
    """Held-out text; its beginning is measured, and routers are fitted to the beginning of --data."""
    name: str = "books"
    """Of the results: experiments/results/mixture_NAME.csv and .md."""
    layers: int = 8
    width: int = 96
    experts: int = 8
    per_token: int = 2
    expert_width: int = 128
    vocabulary: int = 1024
    base_tokens: str = "8M"
    """What the model is trained on."""
    base_rate: float = 3e-3
    tokens: str = "1M"
    """What new layers are trained on."""
    rate: float = 1e-3
    batch_size: int = 16
    sequence_length: int = 256
    eval_characters: int = 120_000
    tokenizer_characters: int = 5_000_000
    seed: int = 0
    work: Path = Path("build/mixture")
    """The model, its grown variants, and runs."""
    results: Path = Path(__file__).parent / "results"

    @property
    def csv(self) -> Path:
        return self.results / f"mixture_{self.name}.csv"


def main(settings: MixtureSettings) -> None:
    """Runs what is not yet in the CSV file; the table is written anew after each row."""
    settings.work.mkdir(parents=True, exist_ok=True)
    base = trained_base(settings)
    if "base" not in recorded(settings):
        append(settings, "base", perplexity(settings, base))
    for way, options in WAYS.items():
        if way not in recorded(settings):
            append(settings, way, *grown_and_trained(settings, base, way, options))
        write_text(settings.csv.with_suffix(".md"), table(settings))


def trained_base(settings: MixtureSettings) -> Path:
    """The model before growth; trained, or found."""
    fresh = settings.work / "fresh"
    if not (fresh / "tokenizer_config.json").exists():
        write_fresh(settings, fresh)
    output = settings.work / "base"
    options = TrainSettings(init="random", config=fresh / "config.json", train="all", tokens=settings.base_tokens)
    run(settings, options, output, settings.base_rate)
    return output / "final"


def write_fresh(settings: MixtureSettings, folder: Path) -> None:
    """config.json of a small Mixtral, and a byte-level BPE of the text."""
    folder.mkdir(exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        [excerpt(settings, "data", settings.tokenizer_characters).read_text("utf-8")], trainer
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "vocab_size": settings.vocabulary,
        "hidden_size": settings.width,
        "intermediate_size": settings.expert_width,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": settings.experts,
        "num_experts_per_tok": settings.per_token,
        "router_aux_loss_coef": 0.02,
        "max_position_embeddings": 1024,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "dtype": "float32",
    }
    write_json(folder / "config.json", config)
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END}
    write_json(folder / "tokenizer_config.json", names)


def run(settings: MixtureSettings, options: TrainSettings, output: Path, rate: float) -> None:
    """A training run to its end, or on to it."""
    values = {name: getattr(options, name) for name in ("model", "init", "config", "train", "tokens")}
    every = max(1, 200_000 // (settings.batch_size * settings.sequence_length))
    result = train(
        TrainSettings(
            **values,
            data=str(settings.data),
            output=output,
            seed=settings.seed,
            batch=BatchSettings(batch_size=settings.batch_size, sequence_length=settings.sequence_length),
            optimizer=OptimizerSettings(learning_rate=rate),
            held_out=HeldOutSettings(hold_out=0),
            keeping=KeepSettings(save_every=every, keep=1, token_cache=settings.work / "tokens"),
        )
    )
    if result.stopped:
        raise SystemExit("stopped; the same command goes on")


def grown_and_trained(settings: MixtureSettings, base: Path, way: str, options: dict[str, Any]) -> list[float]:
    """Perplexity at the start and after training; mean entropy of new routers as made, at the start and after."""
    slug = "".join(c if c.isalnum() else "-" for c in way.lower())
    grown = settings.work / f"grown-{slug}"
    if not grown.exists():
        seen, text = (excerpt(settings, name, settings.eval_characters) for name in ("data", "eval_text"))
        texts = {name: seen for name in ("fit_routers", "match_experts") if name in options}
        length = settings.sequence_length
        expand(ExpandSettings(str(base), grown, eval_text=text, sequence_length=length, **{**options, **texts}))
    measured = json.loads((grown / "growth.json").read_text())["measurements"]
    output = settings.work / f"run-{slug}"
    run(settings, TrainSettings(model=str(grown), tokens=settings.tokens), output, settings.rate)
    final = output / "final"
    entropies = [float(np.mean([router[when] for router in measured["routers"]])) for when in ("before", "after")]
    return [measured["perplexity"]["after"], perplexity(settings, final), *entropies, entropy(settings, base, final)]


def entropy(settings: MixtureSettings, base: Path, final: Path) -> float:
    """Mean entropy of the load of a trained model's new routers, as a share of the largest."""
    checkpoint = open_checkpoint(final)
    config = read_model(checkpoint)
    text = excerpt(settings, "eval_text", settings.eval_characters).read_text("utf-8")
    plan = read_growth(final, config.num_layers).plan
    routers = check_routers(open_checkpoint(base), final, plan, {}, sample_rows(final, text, config))
    return float(np.mean([router.after for router in routers]))


def perplexity(settings: MixtureSettings, model: Path) -> float:
    text = excerpt(settings, "eval_text", settings.eval_characters)
    return evaluate(EvaluateSettings(str(model), text=text, sequence_length=settings.sequence_length))["perplexity"]


def excerpt(settings: MixtureSettings, which: str, characters: int) -> Path:
    """The first characters of a text, as a file."""
    path = settings.work / f"{which}-{characters}.txt"
    if not path.exists():
        with getattr(settings, which).open(encoding="utf-8") as file:
            write_text(path, file.read(characters))
    return path


def recorded(settings: MixtureSettings) -> dict[str, dict[str, str]]:
    """The finished rows in the CSV file."""
    if not settings.csv.exists():
        return {}
    with settings.csv.open(newline="") as file:
        return {row["way"]: row for row in csv.DictReader(file)}


def append(settings: MixtureSettings, way: str, *values: float) -> None:
    """Adds a row to the CSV file; what base has not stays empty."""
    settings.results.mkdir(parents=True, exist_ok=True)
    cells = [f"{value:.5g}" for value in values] + [""] * (len(COLUMNS) - 1 - len(values))
    heading = "" if settings.csv.exists() else ",".join(COLUMNS) + "\n"
    with settings.csv.open("a") as file:
        file.write(f'{heading}"{way}",{",".join(cells)}\n')


def table(settings: MixtureSettings) -> str:
    """The rows as Markdown."""
    lines = [
        f"`experiments/mixture.py`: a Mixtral of {settings.layers} layers, width {settings.width}, {settings.experts} "
        f"experts of width {settings.expert_width}, {settings.per_token} for a token, trained on "
        f"{settings.base_tokens} tokens of `{settings.data.name}`, grown to half as many layers again; perplexity on "
        f"the first {settings.eval_characters:,} characters of `{settings.eval_text.name}`; entropy of the load of new "
        "routers, 1 if experts are used alike, as made, at the start and after training.",
        "",
        f"| new layers | perplexity at the start | after {settings.tokens} tokens | entropy |",
        "|---|---|---|---|",
    ]
    for row in recorded(settings).values():
        entropies = " -> ".join(f"{float(row[name]):.3f}" for name in COLUMNS[3:] if row[name])
        trained = f"{float(row['trained']):.2f}" if row["trained"] else ""
        lines.append(f"| {row['way']} | {float(row['start']):.2f} | {trained} | {entropies} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(tyro.cli(MixtureSettings, description=__doc__))
