"""The options of `python -m lesa_jax.train`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import check_seed, flatten, free, option
from lesa_jax.evaluation.protocol import PplProtocol
from lesa_jax.tracking.trackers import parse_trackers

Schedule = Literal["cosine", "linear", "wsd"]
OptimizerName = Literal["adamw", "muon", "muon-outputs"]
MomentsDtype = Literal["float32", "bfloat16"]
Remat = Literal["none", "block", "full"]
ProfileName = Literal["isotropic", "vanilla", "framed", "reverse", "crown"]


@dataclass(frozen=True)
class BatchSettings:
    """What a step sees."""

    batch_size: int = 16
    """Sequences per step, over all devices."""
    accumulate: int = free(1)
    """Parts that a step's batch is computed in, one after the other: less memory, the same result."""
    sequence_length: int | None = None
    """Tokens per sequence; by default 1024, or fewer if the model has fewer positions."""


@dataclass(frozen=True)
class OptimizerSettings:
    """The update rule and its learning rate."""

    optimizer: OptimizerName = "adamw"
    """muon: for the layers' matrices; AdamW for the rest. muon-outputs: Muon for those alone that write into the
    residual stream, which is where silenced layers begin to learn."""
    learning_rate: float = 2e-4
    """At its peak; AdamW's and Muon's are alike in size."""
    output_rate: float = 1.0
    """Times the learning rate, for what writes into the residual stream (o_proj, down_proj)."""
    new_rate: float = 1.0
    """Times the learning rate, for new layers where old ones are trained beside them (--train all, or an expression):
    silenced copies want some sixteen times the rate of what is trained already."""
    schedule: Schedule = "cosine"
    """After the warm-up. cosine or linear to zero; wsd: constant, then linear to zero over the last fifth."""
    warmup: int | None = None
    """Steps from zero to the peak; by default 3 % of all."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Adam's."""
    moments: MomentsDtype = "float32"
    """What the rule remembers of gradients, between steps. bfloat16: half of that memory."""
    weight_decay: float = 0.1
    """Of matrices; norms and biases have none."""
    clip: float = 1.0
    """Largest norm of the trained tensors' gradient."""
    ema: float = 0.0
    """Decay a step of a moving average of the trained weights, which is then what is evaluated and exported: 0.999
    looks back over about 1,000 steps. 0: none is kept."""


@dataclass(frozen=True)
class DeviceSettings:
    """How the work lies on devices, one or many."""

    dtype: Literal["float32", "bfloat16"] | None = None
    """Of computation and frozen weights; trained weights are float32. By default bfloat16, on a CPU float32."""
    remat: Remat = free("block")
    """What the backward pass computes again to save memory: nothing, a block but its matrix products, or all of it."""
    mesh: str = free("data=1,fsdp=-1,tensor=1")
    """How devices are arranged; -1 takes those that are left."""
    distributed: bool = free(False)
    """One of several processes, as on a TPU slice or under Slurm; elsewhere JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID say which."""


# What metrics call the losses on held-out texts, and the settings that name these.
HELD_OUT_TEXTS = {"eval_loss": "eval_text", "retain_loss": "retain_text"}


@dataclass(frozen=True)
class HeldOutSettings:
    """Losses on texts that are not trained on."""

    eval_text: Path | None = free(None)
    """Text whose loss is measured before, meanwhile and after; by default a part of --data."""
    hold_out: int = 64
    """Sequences of --data that are measured instead of trained on where there is no --eval-text: so many, or one in
    fifty if that is less. 0: none."""
    retain_text: Path | None = free(None)
    """Text of what the model could do before, measured beside --eval-text: what is forgotten while that is learned."""
    eval_every: int = free(500)
    """Steps between evaluations."""
    ppl_protocol: PplProtocol = free("corpus")
    """Of the evaluation; see lesa_jax.evaluate."""


@dataclass(frozen=True)
class KeepSettings:
    """What is kept on the disk."""

    save_every: int = free(500)
    """Steps between checkpoints."""
    keep: int = free(2)
    """Checkpoints that stay."""
    token_cache: Path | None = free(None)
    """Where tokenised data is kept for further runs; by default in the run's folder."""
    export: Literal["hf", "none"] = free("hf")
    """Whether final/ is written at the end, in Hugging Face format."""
    push_to_hub: str | None = free(None)
    """Upload final/ as this model on the Hugging Face hub (ORG/NAME), which is made where it is missing."""
    tracker: str = free("tensorboard")
    """Where the numbers of metrics.jsonl, which is always written, go besides: tensorboard (files in the run's folder),
    wandb (WANDB_PROJECT, WANDB_MODE etc. are heeded), several with commas; jsonl: nowhere."""


@dataclass(frozen=True)
class TrainSettings:
    """Train a grown model: by default only its new layers, which growth.json names; all else stays as it is.

    Works on the families of the README's table that train. Running the same command again goes on where it stopped.

    Examples:
      python -m lesa_jax.train --model expanded --data corpus.jsonl --tokens 200M --output run
      python -m lesa_jax.train --model run/final --data chat.jsonl --stage sft --train all --output run-sft
      python -m lesa_jax.train --model expanded --data "texts/*.txt" --steps 1000 --mesh fsdp=4,tensor=2 --dry-run
    """

    model: str | None = free(None)
    """Folder of a checkpoint, or a hub id (org/name)."""
    data: str | None = None
    """.txt, .jsonl(.gz, .zst), .parquet; a folder or a glob of them, several with commas; or hf://dataset."""
    output: Path = free(Path("run"))
    """Folder of the run: metrics.jsonl, loss.png, checkpoints/, final/, and what --tracker makes."""
    tokens: str | None = None
    """How long: tokens, as in 500000, 200M, 1.5B."""
    steps: int | None = None
    """How long, in steps, instead of --tokens."""
    stage: Literal["pretrain", "sft", "pairs"] = "pretrain"
    """pretrain: all of the text; an encoder-decoder learns it by T5's span corruption. sft: conversations (messages, or
    instruction/input/output); answers count. pairs: for encoder-decoders, records with input and target."""
    train: str = "new"
    """new: the new layers. new+norms: and every norm. all: everything. lora:RANK: low-rank adapters of all linear
    layers, which the export has added up. Or a regular expression on tensor names."""
    mask_steps: int = 0
    """Masked structural growth: what new layers do counts more and more over so many steps, from nothing to all."""
    balance_loss: float | None = None
    """Experts: weight of the loss by which routers use all alike; by default config.json's router_aux_loss_coef."""
    z_loss: float = 0.0
    """Experts: weight of the loss that keeps routers' logits small; 0.001 is usual."""
    seed: int = 0
    """Order of the data; fresh weights with --init random."""
    revision: str | None = free(None)
    """Branch, tag or commit, for a hub id."""
    init: Literal["checkpoint", "random", "norm-scaling"] = "checkpoint"
    """random: from scratch, by --config instead of --model, with --train all. norm-scaling: the same, with what layer l
    reads scaled by 1/sqrt(l) in its norms (LayerNorm Scaling)."""
    config: Path | None = free(None)
    """For both: config.json, with the tokenizer's files beside it."""
    profile: ProfileName | None = None
    """For both: layers of different sizes, as lesa_jax.profile names them, in a model of --config's layers, hidden
    size, heads' width and vocabulary."""
    parameters: str | None = None
    """With --profile: of the whole model, such as 180M, met within 1 %; by default those of the published points."""
    resume: bool = free(False)
    """Insist on going on with an earlier run; without this option an existing run is gone on with, too."""
    dry_run: bool = free(False)
    """Print parameters, memory, operations and estimated time; touch nothing."""
    compile_for: str | None = free(None)
    """Instead: compile a step for hardware that need not be here (v5e:4x4, v6e:4x4, v5p:4x4x4, h100, h100x8), and say
    whether it fits, what it sends and how fast it can be. Needs neither data nor weights: --model may hold config.json
    and growth.json alone."""
    report: Path | None = free(None)
    """With --compile-for: JSON file with the same figures."""
    debug: bool = free(False)
    """Show where an error came from, not only what it is."""

    batch: BatchSettings = BatchSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    devices: DeviceSettings = DeviceSettings()
    held_out: HeldOutSettings = HeldOutSettings()
    keeping: KeepSettings = KeepSettings()


POSITIVE = ("steps", "batch_size", "accumulate", "save_every", "keep", "eval_every")
NOT_NEGATIVE = ("warmup", "mask_steps", "hold_out")
LARGEST = 2**31 - 1  # what the devices count with: steps, and the tokens of one
# Of float32, which rates and norms are on the devices: the smallest and the largest number, and the last one below 1.
SMALLEST, GREATEST, NEARLY_ONE = 2.0**-126, 2.0**127, 1 - 2.0**-24
MOST_ROUNDED = 0.99  # of betas with moments of 8 binary digits: a decay of under 2^-8 a step would be rounded away


def check_settings(settings: TrainSettings) -> None:
    """Refuses options that contradict each other or cannot mean anything."""
    if settings.init != "checkpoint":
        if settings.config is None or settings.model is not None:
            raise InputError(f"--init {settings.init}: takes --config config.json instead of --model")
        if settings.train not in ("new", "all"):
            raise InputError(f"--init {settings.init}: everything is trained; leave out --train {settings.train}")
    elif settings.profile is not None:
        raise InputError(
            f"--profile {settings.profile}: is for fresh weights; add --init random and --config, or leave "
            "it out: a checkpoint has its layers' sizes"
        )
    elif settings.model is None:
        raise InputError("--model: name the checkpoint to train, as made by python -m lesa_jax.expand")
    if settings.parameters is not None and settings.profile is None:
        raise InputError(f"--parameters {settings.parameters}: are met by moving a profile; name one with --profile")
    to_run = settings.compile_for is None
    if settings.report is not None and to_run:
        raise InputError("--report: is written by --compile-for; a run's figures are in its metrics.jsonl")
    if settings.data is None and to_run:
        raise InputError("--data: name the text to train on, such as corpus.jsonl or a folder of .txt files")
    if (settings.tokens is None) == (settings.steps is None) and (to_run or settings.steps is not None):
        raise InputError("--tokens or --steps: say how long to train, with one of the two")
    if not settings.train.strip():
        raise InputError("--train '': names nothing; use new, new+norms, all, or a regular expression on tensor names")
    if settings.keeping.push_to_hub is not None and settings.keeping.export == "none":
        raise InputError("--push-to-hub: uploads final/, which --export none does not write; leave out one of the two")
    check_counts(settings)
    check_router_losses(settings)
    check_rates(settings.optimizer)
    parse_trackers(settings.keeping.tracker)
    check_seed(settings.seed)


def check_counts(settings: TrainSettings) -> None:
    """Refuses whole numbers that are out of their range."""
    given = {name: value for name, value in flatten(settings).items() if value is not None}
    for name in POSITIVE:
        if name in given and not given[name] > 0:
            raise InputError(f"{option(name)} {given[name]}: must be positive")
    for name in NOT_NEGATIVE:
        if name in given and given[name] < 0:
            raise InputError(f"{option(name)} {given[name]}: must not be negative")
    for name in (*POSITIVE, *NOT_NEGATIVE):
        if name in given and given[name] > LARGEST:
            raise InputError(f"{option(name)} {given[name]}: at most {LARGEST}")
    batch = settings.batch
    if batch.batch_size % batch.accumulate:
        raise InputError(f"--accumulate {batch.accumulate}: does not divide --batch-size {batch.batch_size}")


def check_router_losses(settings: TrainSettings) -> None:
    """Refuses weights that are none."""
    for name, value in (("balance_loss", settings.balance_loss), ("z_loss", settings.z_loss)):
        if value is not None and not 0 <= value <= GREATEST:
            raise InputError(f"{option(name)} {value}: must be finite and not negative")


def check_rates(settings: OptimizerSettings) -> None:
    """Refuses what float32 does not have: numbers that are not finite, that are 0 in it, or for betas 1."""
    for name in ("learning_rate", "output_rate", "new_rate", "clip"):
        value = getattr(settings, name)
        if not SMALLEST <= value <= GREATEST:
            raise InputError(f"{option(name)} {value}: must be positive and finite, in float32")
    if not 0 <= settings.weight_decay <= GREATEST:
        raise InputError(f"--weight-decay {settings.weight_decay}: must be finite and not negative")
    if not 0 <= settings.ema <= NEARLY_ONE:
        raise InputError(f"--ema {settings.ema}: must lie in [0, 1), in float32")
    if settings.moments == "bfloat16" and max(settings.betas) > MOST_ROUNDED:
        raise InputError(
            f"--moments bfloat16: with --betas {settings.betas[0]} {settings.betas[1]} a step changes less than "
            f"bfloat16 tells apart; use betas up to {MOST_ROUNDED}, or --moments float32"
        )
    if not all(0 <= beta <= NEARLY_ONE for beta in settings.betas):
        raise InputError("--betas {} {}: both must lie in [0, 1), in float32".format(*settings.betas))
