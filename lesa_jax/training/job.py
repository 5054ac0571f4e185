"""Everything about a training run that can be known, and refused, before a weight is loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json, read_text, write_json
from lesa_jax.checkpoint.format import Kind
from lesa_jax.checkpoint.hub import resolve_model
from lesa_jax.checkpoint.integrity import fingerprint
from lesa_jax.checkpoint.reader import Checkpoint, open_checkpoint
from lesa_jax.checkpoint.tokenizer import check_vocabulary, load_tokenizer
from lesa_jax.data.sources import find_files
from lesa_jax.evaluation.protocol import row_length
from lesa_jax.models.config import ModelConfig
from lesa_jax.models.load import check_tensors
from lesa_jax.models.parts import output_tensor
from lesa_jax.models.shapes import model_tensors
from lesa_jax.parallel.mesh import make_mesh, parse_mesh
from lesa_jax.planning.record import FILE as GROWTH_FILE
from lesa_jax.planning.record import Growth, read_growth
from lesa_jax.training.mask import Mask
from lesa_jax.training.optimizer import OptimizerSettings
from lesa_jax.training.parameters import Leaf, choose, make_leaves
from lesa_jax.training.segments import Segment
from lesa_jax.training.settings import TrainSettings, check_settings, fixed_settings, optimizer_settings
from lesa_jax.training.sharding import check_mesh, leaf_shardings
from lesa_jax.training.step import Program

RUN_FILE = "run.json"
STORED = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class Job:
    """A run, checked.

    Attributes:
      settings: as given.
      checkpoint: the model; None with fresh weights.
      folder: of the tokenizer and the other small files.
      hf_config: config.json.
      config: what the forward pass makes of it.
      growth: how the model was grown, if it was.
      kinds: shape and stored dtype of every tensor of the exported model.
      segments, leaves: see `segments` and `parameters`.
      tokenizer: of the model.
      sequence_length: tokens.
      optimizer: its settings, the number of steps among them.
      program: what is compiled.
      mesh, shardings: where everything lies.
      identity: of model and trained tensors; checkpoints of another one are refused.
      eval_text: to measure.
    """

    settings: TrainSettings
    checkpoint: Checkpoint | None
    folder: Path
    hf_config: Mapping[str, Any]
    config: ModelConfig
    growth: Growth | None
    kinds: Mapping[str, Kind]
    segments: tuple[Segment, ...]
    leaves: tuple[Leaf, ...]
    tokenizer: Any
    sequence_length: int
    optimizer: OptimizerSettings
    program: Program
    mesh: Mesh
    shardings: dict[tuple[str, ...], NamedSharding]
    identity: str
    eval_text: str | None


def prepare(settings: TrainSettings) -> Job:
    """Opens the model and checks every option against it and against an earlier run.

    Raises:
      InputError: whatever is wrong, before anything is written.
    """
    check_settings(settings)
    assert settings.data is not None
    if not settings.data.startswith("hf://"):
        find_files(settings.data)
    checkpoint, folder, hf_config = open_model(settings)
    config = ModelConfig.from_hf(hf_config)
    growth = read_growth(folder) if (folder / GROWTH_FILE).exists() else None
    if checkpoint is None:
        stored = STORED.get(str(hf_config.get("dtype", hf_config.get("torch_dtype"))), "F32")
        kinds = {name: Kind(tensor.shape, stored) for name, tensor in model_tensors(config).items()}
        trained = frozenset(kinds)
    else:
        check_tensors(checkpoint, config)
        kinds = {name: entry.kind for name, entry in checkpoint.entries.items()}
        trained = choose(settings.train, config, growth.plan if growth else None)
    tokenizer: Any = load_tokenizer(folder)
    check_vocabulary(max(tokenizer.get_vocab().values(), default=0), config.vocab_size)
    length = row_length("corpus", config, settings.sequence_length)
    segments, leaves = make_leaves(config, trained)
    sizes = parse_mesh(settings.mesh, jax.device_count())
    check_mesh(sizes, config, settings.batch_size // settings.accumulate)
    mesh = make_mesh(sizes)
    dtype = settings.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    model = json.dumps(hf_config, sort_keys=True) if checkpoint is None else fingerprint(checkpoint)
    optimizer = optimizer_settings(settings, length)
    mask = make_mask(settings, growth, optimizer.steps)
    job = Job(
        settings=settings,
        checkpoint=checkpoint,
        folder=folder,
        hf_config=hf_config,
        config=config,
        growth=growth,
        kinds=kinds,
        segments=segments,
        leaves=leaves,
        tokenizer=tokenizer,
        sequence_length=length,
        optimizer=optimizer,
        program=Program(config, segments, dtype, settings.remat, output_tensor(config) in trained, mask),
        mesh=mesh,
        shardings=leaf_shardings(leaves, mesh),
        identity=sha256(f"{model} {sorted(trained)}".encode()).hexdigest(),
        eval_text=None if settings.eval_text is None else read_text("--eval-text", settings.eval_text),
    )
    check_run(job)
    return job


def open_model(settings: TrainSettings) -> tuple[Checkpoint | None, Path, Mapping[str, Any]]:
    """The checkpoint, its folder and its config.json; with fresh weights only the latter two."""
    if settings.init == "random":
        assert settings.config is not None
        return None, settings.config.parent, read_json(settings.config, "--init random needs one")
    assert settings.model is not None
    folder = resolve_model(settings.model, settings.revision)
    checkpoint = open_checkpoint(folder)
    return checkpoint, folder, checkpoint.config


def make_mask(settings: TrainSettings, growth: Growth | None, steps: int) -> Mask | None:
    """The mask that --mask-steps asks for; it must be gone at the end, for a checkpoint cannot hold one."""
    if settings.mask_steps == 0:
        return None
    if growth is None:
        raise InputError("--mask-steps: masks new layers, but the model has no growth.json; leave it out")
    if settings.mask_steps > steps:
        raise InputError(f"--mask-steps {settings.mask_steps}: must end within the run's {steps} steps")
    return Mask(growth.plan.new_layers, settings.mask_steps)


def check_run(job: Job) -> None:
    """Refuses an output that is something else, or a run with other settings, model or plan."""
    output = job.settings.output
    path = output / RUN_FILE
    if not path.exists():
        if job.settings.resume:
            raise InputError(f"--resume: {output} holds no run to go on with; leave out --resume to start one")
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise InputError(f"--output {output}: exists and is not a run of lesa_jax.train; choose another folder")
        return
    earlier = read_json(path, "")
    if earlier.get("identity") != job.identity:
        raise InputError(
            f"--output {output}: holds a run of another model, plan or --train; choose another folder for this one"
        )
    for name, value in record(job)["settings"].items():
        if earlier["settings"].get(name) != value:
            raise InputError(
                f"--output {output}: its run has {name}={earlier['settings'].get(name)}, now it is {value}; go on with "
                "the settings it began with, or choose another folder"
            )


def record(job: Job) -> dict[str, Any]:
    """run.json: what a resumed run must share."""
    settings = fixed_settings(job.settings) | {
        "steps": job.optimizer.steps,
        "sequence_length": job.sequence_length,
        "dtype": job.program.dtype,
    }
    settings.pop("tokens")
    return {"identity": job.identity, "settings": settings}


def start_run(job: Job) -> None:
    """Makes the run's folder, or leaves an earlier run's as it is."""
    job.settings.output.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0 and not (job.settings.output / RUN_FILE).exists():
        write_json(job.settings.output / RUN_FILE, record(job))


def frozen_dtype(job: Job) -> jnp.dtype:
    return jnp.dtype(job.program.dtype)
