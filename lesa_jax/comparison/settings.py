"""The options of `python -m lesa_jax.compare`."""

from dataclasses import dataclass
from pathlib import Path

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import free
from lesa_jax.base.units import parse_count
from lesa_jax.evaluation.protocol import PplProtocol


@dataclass(frozen=True)
class ComparedTraining:
    """How all variants are trained, each on the same batches."""

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
    output: Path = free(Path("comparison"))
    """Folder for the report and what it is made of."""
    methods: str = free("all")
    """Names with commas, as --method of lesa_jax.expand takes them, or all."""
    layers: int | None = None
    """Target depth; by default one and a half times the model's."""
    placements: str | None = free(None)
    """Where new layers go: top, even, middle, bottom, ends; several with commas. By default each method's own place."""
    seeds: int = free(1)
    """How many: of methods with a random start, and of the order of training data."""
    revision: str | None = None
    """Branch, tag or commit, for a hub id."""
    sequence_length: int | None = None
    """Tokens per window of the text and of training; by default 1024, or fewer if the model has fewer positions."""
    ppl_protocol: PplProtocol = "corpus"
    """See lesa_jax.evaluate."""
    keep_models: bool = free(False)
    """Keep the grown checkpoints in OUTPUT/models; otherwise each goes when it has been measured and trained."""
    debug: bool = free(False)
    """Show where an error came from, not only what it is."""

    training: ComparedTraining = ComparedTraining()


def check_settings(settings: CompareSettings) -> None:
    """Refuses options that contradict each other or cannot mean anything."""
    if settings.seeds < 1:
        raise InputError(f"--seeds {settings.seeds}: at least 1")
    training = settings.training
    if (training.train_data is None) != (training.train_tokens is None):
        raise InputError("--train-data and --train-tokens belong together: what to train on, and for how long")
    if settings.model is not None and settings.text is None:
        raise InputError("--text: name a held-out text to measure perplexity on")
    parse_count("--eval-every", training.eval_every)
    if training.train_tokens is not None:
        parse_count("--train-tokens", training.train_tokens)
