"""What layers of different sizes cost to train: step time and compile time of five profiles at equal parameters.

Command:   python experiments/bench/bench_profiles.py
Run time:  about 4 minutes on 2 idle CPU cores.
Expected:  a step of any profile within a tenth of the isotropic model's; compile time grows with the number of runs of
           equal layers, of which the isotropic model has one. experiments/results/bench_profiles.md.

18 layers of width 192 (heads of 16, three queries to a key, 2,048 tokens, tied), float32, AdamW, all trained, batches
of 8 x 256 random tokens. Models take turns step by step, so that what else runs on the machine meets all of them; the
fastest step of each counts. Compile times are seconds of processor time, of all cores, tracing included.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from bench_report import write_report

from lesa_jax.profiles.named import PROFILES
from lesa_jax.training.cost import token_cost
from lesa_jax.training.job import TrainJob, make_train_job
from lesa_jax.training.lowering import abstract_batch, trace_step
from lesa_jax.training.parameters import abstract_leaves
from lesa_jax.training.settings import BatchSettings, DeviceSettings, TrainSettings
from lesa_jax.training.start import load_weights
from lesa_jax.training.state import first_state, state_shardings
from lesa_jax.training.step import Batch

BASE = {
    "model_type": "llama",
    "hidden_size": 192,
    "intermediate_size": 480,
    "num_hidden_layers": 18,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "vocab_size": 2048,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "ffn_dim_divisor": 16,
}


@dataclass(frozen=True)
class Settings:
    """What to run."""

    steps: int = 12
    """Of each model."""
    output: Path = Path("experiments/results/bench_profiles.md")


@dataclass
class Model:
    """A model under way, and what was measured of it."""

    job: TrainJob
    step: Any
    state: Any
    frozen: Any
    compile_seconds: float
    seconds: list[float]


def main(settings: Settings) -> None:
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "config.json"
        base.write_text(json.dumps(BASE))
        budget = count(make_job(base, "isotropic", None))
        models = {profile: begin(make_job(base, profile, str(budget))) for profile in PROFILES}
    for _ in range(settings.steps + 1):  # the first one warms up
        for model in models.values():
            take_step(model)
    isotropic = models["isotropic"]
    rows = [row(name, model, isotropic) for name, model in models.items()]
    heading = ["profile", "parameters", "runs", "operations", "ms a step", "step time", "compile, s", "compile time"]
    what = "18 layers, width 192, 8 x 256 tokens, float32; operations, step and compile time against isotropic"
    write_report(settings.output, "experiments/bench/bench_profiles.py", ("jax",), what, heading, rows)


def make_job(base: Path, profile: Any, parameters: str | None) -> TrainJob:
    options = TrainSettings(
        data="none",
        init="random",
        config=base,
        profile=profile,
        parameters=parameters,
        steps=100,
        batch=BatchSettings(batch_size=8, sequence_length=256),
        devices=DeviceSettings(remat="none"),
    )
    return make_train_job(options, target=jax.devices())


def count(job: TrainJob) -> int:
    return sum(int(np.prod(spec.shape)) for spec in job.specs.values())


def begin(job: TrainJob) -> Model:
    started = time.process_time()
    step = trace_step(job).lower().compile()
    seconds = time.process_time() - started
    shapes = abstract_leaves(job.leaves, job.shardings)
    placed = state_shardings(shapes, job.shardings, job.mesh, job.optimizer.rule)
    trained, frozen = load_weights(job, job.leaves)
    return Model(job, step, first_state(trained, job.optimizer.rule, placed), frozen, seconds, [])


def take_step(model: Model) -> None:
    shape = abstract_batch(model.job).tokens.shape
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, BASE["vocab_size"], shape, np.int32))
    positions = jnp.broadcast_to(jnp.arange(shape[-1], dtype=jnp.int32), shape)
    batch = Batch(tokens, tokens, jnp.ones(shape, jnp.int32), positions, jnp.ones(shape, jnp.float32))
    started = time.perf_counter()
    model.state, *_ = jax.block_until_ready(model.step(model.state, model.frozen, batch, jnp.float32(1e-4)))
    model.seconds.append(time.perf_counter() - started)


def row(name: str, model: Model, isotropic: Model) -> list[str]:
    own, theirs = (min(each.seconds[1:]) for each in (model, isotropic))
    work, reference = (token_cost(m.job.config, m.job.leaves, m.job.sequence_length).total for m in (model, isotropic))
    return [
        name,
        f"{count(model.job):,}",
        str(len(model.job.segments)),
        f"{work / reference:.3f}",
        f"{1e3 * own:.0f}",
        f"{own / theirs:.2f}",
        f"{model.compile_seconds:.1f}",
        f"{model.compile_seconds / isotropic.compile_seconds:.1f}",
    ]


if __name__ == "__main__":
    main(tyro.cli(Settings))
