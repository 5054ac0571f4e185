"""The options of `python -m lesa_jax.train`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lesa_jax.base.errors import InputError
from lesa_jax.base.units import parse_count
from lesa_jax.evaluation.protocol import PplProtocol
from lesa_jax.training.optimizer import OptimizerSettings, Schedule
from lesa_jax.training.segments import Remat


@dataclass(frozen=True)
class TrainSettings:
    """Train a grown model: by default only its new layers, which growth.json names; all else stays as it is.

    Works on llama, qwen2 and mistral checkpoints. Running the same command again goes on where it stopped.

    Examples:
      python -m lesa_jax.train --model expanded --data corpus.jsonl --tokens 200M --output run
      python -m lesa_jax.train --model run/final --data chat.jsonl --stage sft --train all --output run-sft
      python -m lesa_jax.train --model expanded --data "texts/*.txt" --steps 1000 --mesh fsdp=4,tensor=2 --dry-run
    """

    model: str | None = None
    """Folder of a checkpoint, or a hub id (org/name)."""
    data: str | None = None
    """.txt, .jsonl(.gz, .zst), .parquet; a folder or a glob of them, several with commas; or hf://dataset."""
    output: Path = Path("run")
    """Folder of the run: metrics.jsonl, loss.png, tensorboard/, checkpoints/, final/."""
    tokens: str | None = None
    """How long: tokens, as in 500000, 200M, 1.5B."""
    steps: int | None = None
    """How long, in steps, instead of --tokens."""
    stage: Literal["pretrain", "sft"] = "pretrain"
    """pretrain: all of the text. sft: conversations (messages, or instruction/input/output); answers count."""
    train: str = "new"
    """new: the new layers. new+norms: and every norm. all: everything. Or a regular expression on tensor names."""
    revision: str | None = None
    """Branch, tag or commit, for a hub id."""
    init: Literal["checkpoint", "random"] = "checkpoint"
    """random: from scratch, by --config instead of --model, with --train all."""
    config: Path | None = None
    """--init random: config.json, with the tokenizer's files beside it."""

    batch_size: int = 16
    """Sequences per step, over all devices."""
    accumulate: int = 1
    """Parts that a step's batch is computed in, one after the other: less memory, the same result."""
    sequence_length: int | None = None
    """Tokens per sequence; by default 1024, or fewer if the model has fewer positions."""
    learning_rate: float = 2e-4
    """At its peak."""
    schedule: Schedule = "cosine"
    """After the warm-up. cosine or linear to zero; wsd: constant, then linear to zero over the last fifth."""
    warmup: int | None = None
    """Steps from zero to the peak; by default 3 % of all."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Adam's."""
    weight_decay: float = 0.1
    """Of matrices; norms and biases have none."""
    mask_steps: int = 0
    """Masked structural growth: what new layers do counts more and more over so many steps, from nothing to all."""
    clip: float = 1.0
    """Largest norm of the trained tensors' gradient."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of computation and frozen weights; trained weights are float32. By default bfloat16, on a CPU float32."""
    remat: Remat = "block"
    """What the backward pass computes again to save memory: nothing, a block but its matrix products, or all of it."""
    mesh: str = "data=1,fsdp=-1,tensor=1"
    """How devices are arranged; -1 takes those that are left."""
    distributed: bool = False
    """One of several processes, as on a TPU slice or under Slurm; elsewhere JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID say which."""
    seed: int = 0
    """Order of the data; fresh weights with --init random."""

    save_every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints that stay."""
    eval_every: int = 500
    """Steps between evaluations."""
    eval_text: Path | None = None
    """Text whose loss is measured before, meanwhile and after."""
    ppl_protocol: PplProtocol = "corpus"
    """Of the evaluation; see lesa_jax.evaluate."""
    token_cache: Path | None = None
    """Where tokenised data is kept for further runs; by default in the run's folder."""
    export: Literal["hf", "none"] = "hf"
    """Whether final/ is written at the end, in Hugging Face format."""
    resume: bool = False
    """Insist on going on with an earlier run; without this option an existing run is gone on with, too."""
    dry_run: bool = False
    """Print parameters, memory, operations and estimated time; touch nothing."""


# What may differ when a run goes on; everything else would change its losses.
FREE = {
    "model", "revision", "output", "config", "resume", "dry_run", "export", "mesh", "distributed", "accumulate",
    "remat", "save_every", "keep", "eval_every", "eval_text", "ppl_protocol", "token_cache",
}  # fmt: skip


def fixed_settings(settings: TrainSettings) -> dict[str, Any]:
    """The settings that a resumed run must share, as JSON values."""
    values = {name: value for name, value in asdict(settings).items() if name not in FREE}
    return values | {"betas": list(settings.betas)}


def check_settings(settings: TrainSettings) -> None:
    """Refuses options that contradict each other or cannot mean anything."""
    if settings.init == "random":
        if settings.config is None or settings.model is not None:
            raise InputError("--init random: takes --config config.json instead of --model")
        if settings.train not in ("new", "all"):
            raise InputError(f"--init random: everything is trained; leave out --train {settings.train}")
    elif settings.model is None:
        raise InputError("--model: name the checkpoint to train, as made by python -m lesa_jax.expand")
    if settings.data is None:
        raise InputError("--data: name the text to train on, such as corpus.jsonl or a folder of .txt files")
    if (settings.tokens is None) == (settings.steps is None):
        raise InputError("--tokens or --steps: say how long to train, with one of the two")
    for name in ("steps", "batch_size", "accumulate", "learning_rate", "clip", "save_every", "keep", "eval_every"):
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be positive")
    for name in ("weight_decay", "warmup", "mask_steps"):
        value = getattr(settings, name)
        if value is not None and value < 0:
            raise InputError(f"--{name.replace('_', '-')} {value}: must not be negative")
    if not all(0 <= beta < 1 for beta in settings.betas):
        raise InputError(f"--betas {settings.betas[0]} {settings.betas[1]}: both must lie in [0, 1)")
    if settings.batch_size % settings.accumulate:
        raise InputError(f"--accumulate {settings.accumulate}: does not divide --batch-size {settings.batch_size}")


def optimizer_settings(settings: TrainSettings, sequence_length: int) -> OptimizerSettings:
    """The optimiser's part, with the number of steps worked out."""
    if settings.steps is not None:
        steps = settings.steps
    else:
        assert settings.tokens is not None
        steps = max(1, parse_count("--tokens", settings.tokens) // (settings.batch_size * sequence_length))
    warmup = min(steps, round(0.03 * steps) if settings.warmup is None else settings.warmup)
    return OptimizerSettings(
        settings.learning_rate,
        settings.schedule,
        warmup,
        steps,
        settings.betas,
        settings.weight_decay,
        settings.clip,
    )
