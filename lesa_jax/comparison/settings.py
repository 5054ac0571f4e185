"""The options of `python -m lesa_jax.compare`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import free, listed
from lesa_jax.base.units import parse_count
from lesa_jax.evaluation.protocol import PplProtocol
from lesa_jax.planning.placement import GrownStack
from lesa_jax.training.settings import OptimizerName

SWEEP = "sweep"
SWEPT = (5e-5, 2e-4, 8e-4)  # the rates that every sweep tries, a factor of four apart
PUBLISHED = "published"
MOST_SEEDS = 1000  # more is a slip of the finger


@dataclass(frozen=True)
class ComparedTraining:
    """How all variants are trained, each on the same batches."""

    train_data: str | None = None
    """Train every variant on this; files as in lesa_jax.train."""
    train_tokens: str | None = None
    """How long: tokens, as in 500000, 2M."""
    train: str = "new"
    """What is trained: new, new+norms, all, a regular expression; or published, what each method's paper trains. Base
    is trained as a whole in any case."""
    retain_text: Path | None = None
    """Held-out text of what the model knew before: what is forgotten is measured on it, beside what is learned on
    --text, and a picture shows one against the other."""
    replay_data: str | None = None
    """Text of what the model knew before, to be trained on again while it learns --train-data; files as there."""
    replay: str | None = free(None)
    """Shares of --replay-data among the trained rows, as in 0,0.1: every row stands once for each, base too."""
    eval_every: str = "100k"
    """Tokens between evaluations."""
    learning_rate: float | str = 2e-4
    """At its peak: one for all rows, which is the best of some and not of others. sweep: each row's best of 5e-5, 2e-4,
    8e-4, and on from there while the best is at an end, found by runs of a fifth of --train-tokens. Or such runs at
    these rates, as in 1e-4,1e-3."""
    optimizer: str = free("adamw")
    """Names with commas, as --optimizer of lesa_jax.train takes them: every row stands once for each, base too."""
    lora: bool = free(False)
    """Add the original with low-rank adapters as a row, of the rank at which as much is trained as in new layers."""
    controls: bool = free(True)
    """Train silenced copies at the place of every method, too, where no row has them: what place and cost alone do."""
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
          --placements top,even --train-data corpus.jsonl --train-tokens 2M --seeds 3 --learning-rate sweep \\
          --train published --output comparison
    """

    model: str | None = None
    """Folder of a checkpoint, or a hub id (org/name). By default the demo model."""
    text: Path | None = None
    """Held-out text that perplexity is measured on. By default the demo model's."""
    output: Path = free(Path("comparison"))
    """Folder for the report and what it is made of."""
    methods: str = free("all")
    """Names with commas, as --method of lesa_jax.expand takes them, or all. Each is a row at each of --placements, but
    names of one model share a row; base is one more, and so are --controls."""
    layers: int | None = None
    """Target depth; by default one and a half times the model's."""
    stack: GrownStack | None = None
    """Of an encoder-decoder, which layers grow: see lesa_jax.expand. Its perplexity is that of targets."""
    placements: str | None = free(None)
    """Where new layers go: top, even, middle, bottom, ends, importance, influence; several with commas. By default each
    method's own place. The last two are measured on --retain-text, or without one on --text."""
    seeds: int = free(1)
    """How many: of methods with a random start, and of the order of training data."""
    revision: str | None = None
    """Branch, tag or commit, for a hub id."""
    sequence_length: int | None = None
    """Tokens per window of the text and of training; by default 1024, or fewer if the model has fewer positions."""
    ppl_protocol: PplProtocol = "corpus"
    """See lesa_jax.evaluate."""
    tasks: str | None = None
    """Score every row on these tasks, too, before training and after; names as --tasks of lesa_jax.harness takes them.
    Those that come along are made from --text."""
    keep_models: bool = free(False)
    """Keep the grown checkpoints in OUTPUT/models; otherwise each goes when it has been measured and trained."""
    debug: bool = free(False)
    """Show where an error came from, not only what it is."""

    training: ComparedTraining = ComparedTraining()

    @property
    def trains(self) -> bool:
        """Whether the rows are trained, not only measured."""
        return self.training.train_data is not None


def check_settings(settings: CompareSettings) -> None:
    """Refuses options that contradict each other or cannot mean anything."""
    if not 1 <= settings.seeds <= MOST_SEEDS:
        raise InputError(f"--seeds {settings.seeds}: from 1 to {MOST_SEEDS}")
    training = settings.training
    if training.batch_size < 1:
        raise InputError(f"--batch-size {training.batch_size}: must be positive")
    if (training.train_data is None) != (training.train_tokens is None):
        raise InputError("--train-data and --train-tokens belong together: what to train on, and for how long")
    if settings.model is not None and settings.text is None:
        raise InputError("--text: name a held-out text to measure perplexity on")
    if training.lora and not settings.trains:
        raise InputError("--lora: a way to train; it needs --train-data and --train-tokens")
    if training.retain_text is not None and not settings.trains:
        raise InputError("--retain-text: what is forgotten in training; it needs --train-data and --train-tokens")
    rates(training.learning_rate)
    optimizers(training)
    replays(training)
    parse_count("--eval-every", training.eval_every)
    if training.train_tokens is not None:
        parse_count("--train-tokens", training.train_tokens)


def optimizers(training: ComparedTraining) -> tuple[OptimizerName, ...]:
    """The update rules that --optimizer names; the first one trains the base that others are held against.

    Raises:
      InputError: it names none, or one that there is not.
    """
    known = {name: name for name in get_args(OptimizerName)}
    asked = listed(training.optimizer)
    if not asked or not known.keys() >= set(asked):
        raise InputError(f"--optimizer {training.optimizer}: known are {', '.join(known)}; several with commas")
    return tuple(known[name] for name in dict.fromkeys(asked))


def replays(training: ComparedTraining) -> tuple[float, ...]:
    """The shares of old text that --replay names; the first one trains the base that others are held against.

    Raises:
      InputError: without data to replay or to train on, or shares that are none, or that replay nothing.
    """
    if (training.replay is None) != (training.replay_data is None):
        raise InputError("--replay-data and --replay belong together: what is replayed, and in which shares")
    if training.replay is None:
        return (0.0,)
    if training.train_data is None:
        raise InputError("--replay: a way to train; it needs --train-data and --train-tokens")
    try:
        shares = tuple(dict.fromkeys(float(word) for word in listed(training.replay)))
    except ValueError:
        shares = ()
    if not shares or not all(0 <= share < 1 for share in shares):
        raise InputError(f"--replay {training.replay}: expected shares from 0 to below 1, as in 0,0.1")
    if not any(shares):
        raise InputError(f"--replay {training.replay}: replays nothing; name a share above 0, as in 0,0.1")
    return shares


def rates(learning_rate: float | str) -> tuple[float, ...]:
    """The rates that --learning-rate names; the first ones of a sweep.

    Raises:
      InputError: it names none, or one that is not positive.
    """
    if learning_rate == SWEEP:
        return SWEPT
    words = [word for word in str(learning_rate).split(",") if word.strip()]
    try:
        found = sorted({float(word) for word in words})
    except ValueError:
        found = []
    if not found or not all(0 < rate < math.inf for rate in found):
        raise InputError(
            f"--learning-rate {learning_rate}: expected a positive number such as 2e-4, sweep, or rates to choose from "
            "as in 1e-4,1e-3"
        )
    return tuple(found)
