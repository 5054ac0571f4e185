"""The options of `python -m lesa_jax.compare`, and the variants that they ask for."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from lesa_jax.errors import InputError
from lesa_jax.expand_settings import ExpandSettings
from lesa_jax.methods import METHODS, Placement, Stacking, find_method
from lesa_jax.metrics import PplProtocol
from lesa_jax.train_settings import parse_count

BASE = "base"


@dataclass(frozen=True)
class CompareSettings:
    """Compare growth methods on a model: which one starts lowest, and with --train-data, which one learns fastest.

    Grows the model by every method, measures each one's perplexity, trains all on the same batches if asked to, and
    writes tables, pictures and report.html. An interrupted comparison goes on where it stopped; several processes that
    are given the same command at a time share the training.

    Examples:
      python -m lesa_jax.compare --model ./my-model --text held-out.txt --output comparison
      python -m lesa_jax.compare --model ./my-model --text held-out.txt --methods lesa,llama_pro,identity \\
          --placements top,even --train-data corpus.jsonl --train-tokens 2M --seeds 3 --output comparison
    """

    model: str | None = None
    """Folder of a checkpoint, or a hub id (org/name). By default the demo model."""
    text: Path | None = None
    """Held-out text that perplexity is measured on. By default the demo model's."""
    output: Path = Path("comparison")
    """Folder for the report and what it is made of."""
    methods: str = "all"
    """Names with commas, as --method of lesa_jax.expand takes them, or all."""
    layers: int | None = None
    """Target depth; by default one and a half times the model's."""
    placements: str | None = None
    """Where new layers go: top, even, middle, bottom, ends; several with commas. By default each method's own place."""
    seeds: int = 1
    """How many: of methods with a random start, and of the order of training data."""
    revision: str | None = None
    """Branch, tag or commit, for a hub id."""

    train_data: str | None = None
    """Train every variant on this; files as in lesa_jax.train."""
    train_tokens: str | None = None
    """How long: tokens, as in 500000, 2M."""
    train: str = "new"
    """What is trained: new, new+norms, all or a regular expression; base is trained as a whole in any case."""
    eval_every: str = "100k"
    """Tokens between evaluations."""
    learning_rate: float = 2e-4
    """At its peak."""
    batch_size: int = 16
    """Sequences per step."""

    sequence_length: int | None = None
    """Tokens per window of the text and of training; by default 1024, or fewer if the model has fewer positions."""
    ppl_protocol: PplProtocol = "corpus"
    """See lesa_jax.evaluate."""
    keep_models: bool = False
    """Keep the grown checkpoints in OUTPUT/models; otherwise each goes when it has been measured and trained."""


@dataclass(frozen=True)
class Variant:
    """One row of the comparison: a method at a place. `placement` is None for the method's own."""

    method: str
    placement: Placement | None

    @property
    def name(self) -> str:
        return self.method if self.placement is None else f"{self.method}-{self.placement}"

    @property
    def place(self) -> str:
        return self.placement or find_method(self.method).placement


def check_settings(settings: CompareSettings) -> None:
    """Refuses options that contradict each other or cannot mean anything."""
    if settings.seeds < 1:
        raise InputError(f"--seeds {settings.seeds}: at least 1")
    if (settings.train_data is None) != (settings.train_tokens is None):
        raise InputError("--train-data and --train-tokens belong together: what to train on, and for how long")
    if settings.model is not None and settings.text is None:
        raise InputError("--text: name a held-out text to measure perplexity on")
    parse_count("--eval-every", settings.eval_every)
    if settings.train_tokens is not None:
        parse_count("--train-tokens", settings.train_tokens)


def variants(settings: CompareSettings) -> list[Variant]:
    """The rows after base; a method that repeats the whole model stands at its own place only.

    Raises:
      InputError: an unknown method or placement, or none at all.
    """
    known = list(get_args(Placement))
    places = [None] if settings.placements is None else split(settings.placements)
    for place in places:
        if place is not None and place not in known:
            raise InputError(f"--placements {place}: known are {', '.join(known)}")
    names = list(METHODS) if settings.methods == "all" else split(settings.methods)
    if not names:
        raise InputError(f"--methods is empty: name some of {', '.join(METHODS)}, or all")
    found: dict[Variant, None] = {}
    for name in names:
        whole = find_method(name).placement in get_args(Stacking)
        for place in [None] if whole else places:
            found[Variant(name, place)] = None  # pyright: ignore[reportArgumentType] (checked above)
    return list(found)


def split(words: str) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()]


def name_of(variant: Variant | None) -> str:
    """What a row's files are named by; None is base."""
    return BASE if variant is None else variant.name


def model_name(variant: Variant, seed: int) -> str:
    """Folder of the model that training with `seed` starts from: the same one for all seeds, or one for each."""
    return f"{variant.name}-{seed if find_method(variant.method).random else 0}"


def grown_seeds(settings: CompareSettings, variant: Variant) -> range:
    """Seeds that grow different models."""
    return range(settings.seeds if find_method(variant.method).random else 1)


def ways(settings: CompareSettings, folder: Path) -> Iterator[tuple[Variant, int, ExpandSettings]]:
    """How each variant is grown, for each of its seeds, into a folder of its own in `folder`."""
    for variant in variants(settings):
        for seed in grown_seeds(settings, variant):
            way = ExpandSettings(
                model=settings.model,
                output=folder / model_name(variant, seed),
                method=variant.method,
                layers=settings.layers,
                placement=variant.placement,
            )
            yield variant, seed, replace(way, seed=seed) if find_method(variant.method).random else way
