"""Does LESA carry over to encoder-decoders? A small T5 is trained, then looked at and grown, stack by stack.

Command:   python experiments/ablation/small_t5.py --data books-cpt.txt --text books-val.txt --work work \\
               --tokenizer books16/tokenizer.json
           One core is enough; a killed process goes on where it was when it is given the same command.
           With --task restore it learns to put words right that were left out and swapped, for which it must read its
           encoder; span corruption alone hardly makes so small a model do that.
Run time:  an hour on one core that had some other work, two with --task restore, and 15 minutes for the rest.
Expected:  experiments/results/small_t5.md, or small_t5_restore.md: how continuous each stack's leading singular
           coefficients are in depth, with the null of shuffled layers (see continuity.py), and the perplexity of
           targets right after growth, by method and stack, no layer having been trained.

A T5 of 8 + 8 layers of width 96 and 1,024 tokens: the first ones of a given byte-level BPE, and the sentinels of span
corruption. What it learned is what it is measured by.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from ablation import svd_bases
from continuity import Settings as Shuffles
from continuity import continuity, tsne
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from lesa_jax.base.files import read_json, read_text, write_json, write_text
from lesa_jax.demo import MODEL_DIRECTORY
from lesa_jax.evaluation.run import EvaluateSettings, evaluate
from lesa_jax.families.model import ModelConfig
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.models.load import load_model
from lesa_jax.models.parts import layers_of, part
from lesa_jax.models.shapes import layer_tensors
from lesa_jax.training.run import train
from lesa_jax.training.settings import (
    BatchSettings,
    DeviceSettings,
    HeldOutSettings,
    KeepSettings,
    OptimizerSettings,
    TrainSettings,
)

SENTINELS = 32
HEAD_WIDTH = 16
WORDS = 32  # of a pair: some 85 tokens
METHODS = (
    "llama_pro",
    "lesa",
    "lesa_published",
    "shuffled",
    "lesa_raw",
    "average",
    "average_scaled",
    "duplicate",
    "solar",
    "random",
)
TASKS = {"spans": "span corruption", "restore": "words put right that were left out and swapped, a tenth of each"}
STACKS = ("encoder", "decoder", "both")


@dataclass(frozen=True)
class Settings:
    """What the model is, and what it is trained on."""

    data: Path
    text: Path
    work: Path
    tokenizer: Path = MODEL_DIRECTORY / "tokenizer.json"
    task: Literal["spans", "restore"] = "spans"
    layers: int = 8
    width: int = 96
    vocabulary: int = 1024
    steps: int = 5_000
    batch_size: int = 16
    sequence_length: int = 128
    learning_rate: float = 3e-3
    characters: int = 200_000
    """Of the held-out text that are measured."""
    methods: str = ",".join(METHODS)
    results: Path = Path("experiments/results")


def main(settings: Settings) -> None:
    model = train_model(settings)
    excerpt = settings.work / "held-out.txt"
    text = read_text("--text", settings.text)[: settings.characters]
    write_text(excerpt, text if settings.task == "spans" else "\n".join(pairs(text)))
    params, config = load_model(model)
    continuous = [row for stack in config.stacks for row in stack_continuity(params, stack)]
    grown = measure_all(settings, model, excerpt)
    settings.results.mkdir(parents=True, exist_ok=True)
    page = settings.results / ("small_t5.md" if settings.task == "spans" else f"small_t5_{settings.task}.md")
    write_text(page, tables(settings, config, continuous, grown))
    print(f"wrote {page}")


def train_model(settings: Settings) -> Path:
    """The trained model's folder; training goes on where an earlier process stopped."""
    start = settings.work / "start"
    start.mkdir(parents=True, exist_ok=True)
    shorten(settings.tokenizer, settings.vocabulary).save_pretrained(start)
    write_json(start / "config.json", t5_config(settings))
    every = max(1, settings.steps // 20)
    data, stage = settings.data, "pretrain"
    if settings.task == "restore":
        data, stage = settings.work / "pairs.jsonl", "pairs"
        if not data.exists():
            write_text(data, "\n".join(pairs(read_text("--data", settings.data))))
    wanted = TrainSettings(
        data=str(data),
        stage=stage,
        output=settings.work / "run",
        steps=settings.steps,
        init="random",
        config=start / "config.json",
        batch=BatchSettings(batch_size=settings.batch_size, sequence_length=settings.sequence_length),
        optimizer=OptimizerSettings(learning_rate=settings.learning_rate),
        devices=DeviceSettings(remat="none"),
        held_out=HeldOutSettings(eval_every=every, hold_out=0),
        keeping=KeepSettings(save_every=every),
    )
    if train(wanted).stopped:
        sys.exit("stopped and saved: run the same command again to go on")
    return settings.work / "run" / "final"


def pairs(text: str) -> Iterator[str]:
    """JSON lines: some words of the text without every tenth of them and with every tenth behind the next; the text."""
    words, rng = text.split(), np.random.default_rng(0)
    for start in range(0, len(words) - WORDS, WORDS):
        right = words[start : start + WORDS]
        chance = rng.random(WORDS)
        places = np.arange(WORDS) + np.where(chance < 0.1, 1.5, 0)
        kept = [place for place in np.argsort(places) if chance[place] < 0.9]
        yield json.dumps({"input": " ".join(right[place] for place in kept), "target": " ".join(right)})


def t5_config(settings: Settings) -> dict[str, Any]:
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "d_model": settings.width,
        "d_kv": HEAD_WIDTH,
        "d_ff": 4 * settings.width,
        "num_heads": settings.width // HEAD_WIDTH,
        "num_layers": settings.layers,
        "num_decoder_layers": settings.layers,
        "vocab_size": settings.vocabulary,
        "feed_forward_proj": "relu",
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 0,
        "dropout_rate": 0.0,
        "tie_word_embeddings": True,
    }


def shorten(file: Path, size: int) -> PreTrainedTokenizerFast:
    """The first tokens of a byte-level BPE, as it was after so many merges, and the sentinels at the top of `size`."""
    described = read_json(file, "a tokenizer.json of a byte-level BPE")
    kept = {token: number for token, number in described["model"]["vocab"].items() if number < size - SENTINELS}
    merges = [merge for merge in described["model"]["merges"] if "".join(merge) in kept]
    sentinels = {f"<extra_id_{number}>": size - 1 - number for number in range(SENTINELS)}
    end = described["added_tokens"][0]["content"]
    described["model"] |= {"vocab": kept | sentinels, "merges": merges}
    described["added_tokens"] += [
        {**described["added_tokens"][0], "id": number, "content": token} for token, number in sentinels.items()
    ]
    backend = Tokenizer.from_str(json.dumps(described))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, pad_token=end)


def stack_continuity(params: Any, stack: ModelConfig) -> list[dict[str, Any]]:
    """One row for each kind of matrix: how its layers' leading coefficients follow their depth."""
    layers, side = layers_of(params, stack), "encoder" if stack.encoder is None else "decoder"
    kinds = {
        name.removesuffix(".weight"): part(layers, name)
        for name, tensor in layer_tensors(stack, 0).items()
        if tensor.role == "matrix"
    }
    rows = []
    for kind, basis in svd_bases(kinds).items():
        points = np.asarray(basis.v[:, 0], np.float64)
        measured = continuity(points, tsne(points, min(5.0, (len(points) - 1) / 2)), Shuffles())
        rows.append({"stack": side, "kind": ".".join(kind.split(".")[-2:])} | measured)
        print(rows[-1], flush=True)
    return rows


def measure_all(settings: Settings, model: Path, text: Path) -> dict[str, float]:
    """Perplexity of targets of the model and of each way to grow it, by name; what was measured before is kept."""
    kept = settings.work / "perplexities.json"
    found: dict[str, float] = read_json(kept, "it was there before") if kept.exists() else {}
    ways: dict[str, tuple[str, Any] | None] = {"base": None}
    ways |= {f"{m} {stack}": (m, stack) for m in settings.methods.split(",") for stack in STACKS}
    for name, way in ways.items():
        if name in found:
            continue
        folder = model
        if way is not None:
            method, stack = way
            folder = settings.work / "grown" / name.replace(" ", "-")
            expand(ExpandSettings(str(model), folder, method=method, stack=stack, overwrite=True))
        wanted = EvaluateSettings(str(folder), text=text, sequence_length=settings.sequence_length, batch_size=32)
        found[name] = evaluate(wanted)["perplexity"]
        write_json(kept, found)
        print(f"{name}: {found[name]:.3f}", flush=True)
    return found


def tables(settings: Settings, config: ModelConfig, continuous: list[dict[str, Any]], grown: dict[str, float]) -> str:
    """Both tables as Markdown."""
    tokens = settings.steps * settings.batch_size * settings.sequence_length
    head = ("stack", "kind", "path", "p_path", "tsne", "p_tsne", "null_mean", "adjacent_cosine", "all_cosine")
    lines = [
        "# A small T5: continuity in depth, and growth",
        f"By `ablation/small_t5.py`: {config.num_layers} + {config.num_layers} layers of width {config.hidden_size}, "
        f"{config.vocab_size} tokens, trained on {tokens / 1e6:.3g} million source tokens of `{settings.data.name}` "
        f"({settings.steps:,} steps, {TASKS[settings.task]}).",
        "Rank correlation of depth and the order of layers along a path through their leading singular coefficients, "
        "its p value against shuffled layers, and cosines:",
        table(head, [[cell(row[name]) for name in head] for row in continuous]),
        f"Perplexity of targets on the first {settings.characters:,} characters of `{settings.text.name}`, each stack "
        f"grown by half, nothing trained; before growth it is {grown['base']:.3f}:",
        table(
            ("method", *STACKS),
            [[method, *(cell(grown[f"{method} {s}"]) for s in STACKS)] for method in settings.methods.split(",")],
        ),
    ]
    return "\n\n".join(lines) + "\n"


def table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3f}" if value < 1e4 else f"{value:.3g}"


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
