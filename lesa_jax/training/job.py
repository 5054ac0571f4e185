"""Everything about a training run that can be known, and refused, before a weight is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from lesa_jax.base.digests import digest
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json, read_text
from lesa_jax.base.settings import option
from lesa_jax.base.units import parse_count
from lesa_jax.checkpoint.format import TensorSpec
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.reader import Checkpoint, open_checkpoint
from lesa_jax.checkpoint.tokenizer import check_vocabulary, load_tokenizer
from lesa_jax.data.corruption import find_corruption
from lesa_jax.data.sources import find_files
from lesa_jax.evaluation.protocol import row_length
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.config import read_config, read_model
from lesa_jax.models.parts import output_tensor
from lesa_jax.models.shapes import check_tensors, model_tensors
from lesa_jax.parallel.mesh import make_mesh, parse_mesh
from lesa_jax.planning.plan import Plan
from lesa_jax.planning.record import FILE as GROWTH_FILE
from lesa_jax.planning.record import Growth, read_growth
from lesa_jax.profiles.base import profiled
from lesa_jax.training.lora import with_adapters
from lesa_jax.training.mask import Mask
from lesa_jax.training.optimizer import NewRows, Optimizer
from lesa_jax.training.parameters import Leaf, choose, encoder_segments, make_leaves
from lesa_jax.training.segments import Segment
from lesa_jax.training.settings import (
    HELD_OUT_TEXTS,
    LARGEST,
    HeldOutSettings,
    OptimizerSettings,
    TrainSettings,
    check_settings,
)
from lesa_jax.training.sharding import check_mesh, leaf_shardings
from lesa_jax.training.step import Program

STORED = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class TrainJob:
    """A run, checked.

    Attributes:
      settings: as given.
      checkpoint: the model; None with fresh weights, and where no weights are asked for.
      folder: of the tokenizer and the other small files.
      hf_config: config.json.
      config: what the forward pass makes of it.
      growth: how the model was grown, if it was.
      specs: shape and stored dtype of every tensor of the exported model.
      segments, leaves: see `segments` and `parameters`.
      tokenizer: of the model; where no weights are asked for, only an encoder-decoder's.
      sequence_length: tokens; of an encoder-decoder, those that it reads.
      target_length: of an encoder-decoder, tokens that it is to write.
      optimizer: the update rule, and for how many steps.
      program: what is compiled.
      mesh, shardings: where everything lies.
      identity: of the names, shapes and dtypes of all tensors, and of which are trained.
      texts: to measure, by what metrics call their losses.
    """

    settings: TrainSettings
    checkpoint: Checkpoint | None
    folder: Path
    hf_config: Mapping[str, Any]
    config: ModelConfig
    growth: Growth | None
    specs: Mapping[str, TensorSpec]
    segments: tuple[Segment, ...]
    leaves: tuple[Leaf, ...]
    tokenizer: Any
    sequence_length: int
    target_length: int
    optimizer: Optimizer
    program: Program
    mesh: Mesh
    shardings: dict[tuple[str, ...], NamedSharding]
    identity: str
    texts: Mapping[str, str]

    @property
    def frozen_dtype(self) -> jnp.dtype:
        """Of the weights that are not trained."""
        return jnp.dtype(self.program.dtype)

    @property
    def step_tokens(self) -> int:
        """Tokens of one step, over all devices."""
        return self.settings.batch.batch_size * self.sequence_length


def make_train_job(settings: TrainSettings, target: Sequence[Any] | None = None) -> TrainJob:
    """Opens the model and checks every option against it.

    Args:
      settings: the options.
      target: devices that the run is to be compiled for and not to be run on, so that neither weights nor data are
        asked for; by default it is to run on this machine's.

    Raises:
      InputError: whatever is wrong, before anything is written.
    """
    check_settings(settings)
    if target is None:
        assert settings.data is not None
        find_files(settings.data)
    checkpoint, folder, hf_config = open_model(settings, weights=target is None)
    config = read_config(hf_config) if checkpoint is None else read_model(checkpoint, hf_config)
    check_stage(settings, config)
    check_init(settings, config)
    depths = config.num_layers, config.encoder and config.encoder.num_layers
    growth = read_growth(folder, *depths) if (folder / GROWTH_FILE).exists() else None
    if checkpoint is None:
        stored = STORED.get(str(hf_config.get("dtype", hf_config.get("torch_dtype"))), "F32")
        specs = {name: TensorSpec(tensor.shape, stored) for name, tensor in model_tensors(config).items()}
    else:
        check_tensors(checkpoint, config)
        specs = {name: entry.spec for name, entry in checkpoint.entries.items()}
    if settings.init == "checkpoint":
        config = with_adapters(config, settings.train)
        trained = choose(settings.train, config, growth.plan if growth else None)
    else:
        trained = frozenset(specs)
    tokenizer: Any = None
    if target is None or config.encoder is not None:
        tokenizer = load_tokenizer(folder)
        check_vocabulary(max(tokenizer.get_vocab().values(), default=0), config.vocab_size)
    batch, devices = settings.batch, settings.devices
    length = row_length("corpus", config, batch.sequence_length)
    target_length = length
    if config.encoder is not None and settings.stage == "pretrain":
        target_length = find_corruption(tokenizer, settings.seed).lengths(length)[1]
    segments, leaves = make_leaves(config, trained)
    available = jax.devices() if target is None else target
    sizes = parse_mesh(devices.mesh, len(available))
    check_mesh(sizes, config, batch.batch_size // batch.accumulate)
    mesh = make_mesh(sizes, available)
    dtype = devices.dtype or ("float32" if available[0].platform == "cpu" else "bfloat16")
    optimizer = make_optimizer(settings, length, find_new_rows(leaves, settings.optimizer, growth))
    mask = make_mask(settings, growth, optimizer.steps)
    return TrainJob(
        settings=settings,
        checkpoint=checkpoint,
        folder=folder,
        hf_config=hf_config,
        config=config,
        growth=growth,
        specs=specs,
        segments=segments,
        leaves=leaves,
        tokenizer=tokenizer,
        sequence_length=length,
        optimizer=optimizer,
        target_length=target_length,
        program=Program(
            config,
            segments,
            dtype,
            devices.remat,
            output_tensor(config) in trained,
            mask,
            encoder_segments(config, trained),
            **router_losses(settings, config),
        ),
        mesh=mesh,
        shardings=leaf_shardings(leaves, mesh),
        identity=digest({name: [spec.dtype, *spec.shape, name in trained] for name, spec in specs.items()}),
        texts=read_texts(settings.held_out),
    )


def read_texts(held_out: HeldOutSettings) -> dict[str, str]:
    """The texts whose losses are measured, by the names of `tracking.log.KEYS`."""
    files = {name: getattr(held_out, setting) for name, setting in HELD_OUT_TEXTS.items()}
    return {name: read_text(option(HELD_OUT_TEXTS[name]), file) for name, file in files.items() if file is not None}


def check_stage(settings: TrainSettings, config: ModelConfig) -> None:
    """Refuses data that the model cannot read."""
    if config.encoder is None and settings.stage == "pairs":
        raise InputError(f"--stage pairs: a {config.model_type} has no encoder; give conversations, with --stage sft")
    if config.encoder is not None and settings.stage == "sft":
        raise InputError(
            f"--stage sft: a {config.model_type} is an encoder-decoder; give records with input and target, with "
            "--stage pairs"
        )


def check_init(settings: TrainSettings, config: ModelConfig) -> None:
    """Refuses to scale norms that are not there."""
    before = config.encoder is None and not config.post_norm and config.names.attention_norm is not None
    if settings.init == "norm-scaling" and config.norm_scales:
        raise InputError("--init norm-scaling: config.json scales what layers read already (norm_scales); use random")
    if settings.init == "norm-scaling" and not (before and config.norm.weight):
        raise InputError(
            f"--init norm-scaling: is for decoders with norms before attention, which a {config.model_type} is not; "
            "use --init random"
        )


def open_model(settings: TrainSettings, weights: bool) -> tuple[Checkpoint | None, Path, Mapping[str, Any]]:
    """The checkpoint, its folder and its config.json; with fresh weights, or without `weights`, only the latter two."""
    if settings.init != "checkpoint":
        assert settings.config is not None
        config = read_json(settings.config, f"--init {settings.init} needs one")
        if settings.profile is not None:
            count = None if settings.parameters is None else parse_count("--parameters", settings.parameters)
            config = profiled(config, settings.profile, count)
        return None, settings.config.parent, config
    assert settings.model is not None
    folder = resolve_model(settings.model, settings.revision)
    if not weights:
        return None, folder, read_json(folder / "config.json", "--model needs one")
    checkpoint = open_checkpoint(folder)
    return checkpoint, folder, checkpoint.config


def count_steps(settings: TrainSettings, sequence_length: int) -> int:
    """The number of steps, as given or as so many tokens need."""
    if settings.steps is not None:
        return settings.steps
    if settings.tokens is None:  # to compile a step, which is the same for a run of any length
        return LARGEST
    tokens, of_a_step = parse_count("--tokens", settings.tokens), settings.batch.batch_size * sequence_length
    steps = tokens // of_a_step
    if steps < 1:
        raise InputError(f"--tokens {settings.tokens}: less than a step, which takes {of_a_step} (--batch-size)")
    if steps > LARGEST:
        raise InputError(f"--tokens {settings.tokens}: {steps} steps; at most {LARGEST}")
    return steps


def find_new_rows(leaves: Sequence[Leaf], settings: OptimizerSettings, growth: Growth | None) -> NewRows:
    """Which rows of the trained leaves are new layers, if these have a rate of their own.

    Raises:
      InputError: they have one, but nothing says what is new.
    """
    if settings.new_rate == 1:
        return ()
    if growth is None:
        raise InputError(
            f"--new-rate {settings.new_rate}: is for new layers, but the model has no growth.json; leave it out"
        )
    return tuple(
        (leaf.path, rows) for leaf in leaves if leaf.trained and leaf.stacked and (rows := new_rows(leaf, growth.plan))
    )


def new_rows(leaf: Leaf, plan: Plan) -> tuple[int, ...]:
    """Which rows of a leaf's array belong to new layers."""
    of_stack = plan.encoder if leaf.in_encoder else plan
    new = () if of_stack is None else of_stack.new_layers
    return tuple(row for row, layer in enumerate(leaf.layers) if layer in new)


def make_optimizer(settings: TrainSettings, sequence_length: int, new: NewRows = ()) -> Optimizer:
    """The update rule and the run's length, which the warm-up must fit into and the devices be able to count."""
    of_a_step = settings.batch.batch_size * sequence_length
    if of_a_step > LARGEST:
        raise InputError(f"--batch-size {settings.batch.batch_size}: {of_a_step} tokens a step; at most {LARGEST}")
    optimizer = Optimizer(settings.optimizer, count_steps(settings, sequence_length), new)
    if optimizer.warmup > optimizer.steps:
        raise InputError(f"--warmup {optimizer.warmup}: must end within the run's {optimizer.steps} steps")
    return optimizer


def router_losses(settings: TrainSettings, config: ModelConfig) -> dict[str, float]:
    """The weights of the routers' losses: that of balance as given or by config.json."""
    if config.experts is None:
        if settings.balance_loss is not None or settings.z_loss:
            raise InputError(
                f"--balance-loss, --z-loss: are for experts; this {config.model_type} model has none: leave them out"
            )
        return {}
    balance = config.experts.balance if settings.balance_loss is None else settings.balance_loss
    return {"balance": balance, "z": settings.z_loss}


def make_mask(settings: TrainSettings, growth: Growth | None, steps: int) -> Mask | None:
    """The mask that --mask-steps asks for; it must be gone at the end, for a checkpoint cannot hold one."""
    if settings.mask_steps == 0:
        return None
    if growth is None:
        raise InputError("--mask-steps: masks new layers, but the model has no growth.json; leave it out")
    if settings.mask_steps > steps:
        raise InputError(f"--mask-steps {settings.mask_steps}: must end within the run's {steps} steps")
    encoder = growth.plan.encoder
    return Mask(growth.plan.new_layers, settings.mask_steps, () if encoder is None else encoder.new_layers)
