"""A run under way, and how it begins: with the model's weights, or with those of its last checkpoint."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.names import Tree
from lesa_jax.training.checkpoints import Checkpoints
from lesa_jax.training.job import TrainJob
from lesa_jax.training.lora import beside
from lesa_jax.training.parameters import (
    Leaf,
    abstract_leaves,
    from_checkpoint,
    load_leaves,
    norm_scaled,
    random_weights,
)
from lesa_jax.training.state import TrainState, abstract_state, first_state, state_shardings


@dataclass
class Run:
    """A run under way.

    Attributes:
      state: what a step changes; given away and replaced in every step.
      frozen: the tree that no step changes.
      placed: where every leaf of the state lies.
      loader_state: where the data goes on; None from its beginning.
      first_losses, last_losses: held-out losses in nats, where measured, by the metrics' names.
      base_losses: those of the model without its new layers, measured before the first step.
      unmeasured: a step whose held-out loss was to be measured when the run was stopped, and its other metrics.
      record: digest of run.json, which the run's checkpoints belong to; see `folder.begin_run`.
      started: when, by the monotonic clock, in seconds.
    """

    state: TrainState
    frozen: Tree
    placed: TrainState
    loader_state: dict[str, Any] | None = None
    first_losses: dict[str, float] = field(default_factory=dict)
    last_losses: dict[str, float] = field(default_factory=dict)
    base_losses: dict[str, float] = field(default_factory=dict)
    unmeasured: tuple[int, dict[str, float | int | None]] | None = None
    record: str | None = None
    started: float = field(default_factory=time.monotonic)


def start(job: TrainJob, checkpoints: Checkpoints) -> Run:
    """Weights on their devices: from the run's last checkpoint, or from the model."""
    shapes = abstract_leaves([leaf for leaf in job.leaves if leaf.trained], job.shardings)
    placed = state_shardings(shapes, job.shardings, job.mesh, job.optimizer.rule)
    if checkpoints.latest is not None:
        return resume(job, checkpoints, abstract_state(shapes, job.optimizer.rule, placed), placed)
    trained, frozen = load_weights(job, job.leaves)
    return Run(first_state(trained, job.optimizer.rule, placed), frozen, placed)


def resume(job: TrainJob, checkpoints: Checkpoints, abstract: TrainState, placed: TrainState) -> Run:
    """The run as its last checkpoint has it; the model's files give the frozen weights only."""
    facts = checkpoints.facts()
    if facts["identity"] != job.identity:
        raise InputError(f"{checkpoints.folder}: checkpoints of another model or plan; choose another --output")
    state = checkpoints.restore(abstract, facts)
    _, frozen = load_weights(job, [leaf for leaf in job.leaves if not leaf.trained])
    unmeasured = facts["unmeasured"] and tuple(facts["unmeasured"])
    first, last, base = (facts[name] for name in ("first_losses", "last_losses", "base_losses"))
    return Run(state, frozen, placed, facts["loader"], first, last, base, unmeasured, facts["record"])


def load_weights(job: TrainJob, leaves: Sequence[Leaf]) -> tuple[Tree, Tree]:
    """Trained and frozen tree of `leaves`: from the model's files, or fresh ones."""
    fresh = random_weights(job.settings.seed, float(job.hf_config.get("initializer_range", 0.02)))
    if job.settings.init == "norm-scaling":
        fresh = norm_scaled(fresh, job.config)
    fill = fresh if job.checkpoint is None else beside(from_checkpoint(job.checkpoint), fresh)
    return load_leaves(leaves, fill, job.shardings, job.frozen_dtype)
