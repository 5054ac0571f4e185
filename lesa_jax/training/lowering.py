"""The step of a run as a program for its devices, from shapes alone: no weight is loaded, nothing runs."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.models.encoder_decoder import Text
from lesa_jax.parallel.mesh import BATCH
from lesa_jax.training.job import TrainJob
from lesa_jax.training.parameters import abstract_leaves
from lesa_jax.training.state import abstract_state, state_shardings
from lesa_jax.training.step import Batch, jitted_step


def trace_step(job: TrainJob) -> Any:
    """`train_step` of the run, traced; `.lower().compile()` it."""
    rule = job.optimizer.rule
    trained = abstract_leaves([leaf for leaf in job.leaves if leaf.trained], job.shardings)
    frozen = abstract_leaves([leaf for leaf in job.leaves if not leaf.trained], job.shardings, job.frozen_dtype)
    placed = state_shardings(trained, job.shardings, job.mesh, rule)
    rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(job.mesh, P()))
    return jitted_step(placed, job.mesh).trace(
        abstract_state(trained, rule, placed), frozen, abstract_batch(job), rate, program=job.program, rule=rule
    )


def abstract_batch(job: TrainJob) -> Batch:
    """A batch [accumulate, sequences, tokens] as `loop.device_batch` places it."""
    batch, sharding = job.settings.batch, NamedSharding(job.mesh, P(None, BATCH))
    rows = batch.accumulate, batch.batch_size // batch.accumulate

    def zeros() -> Batch:
        if job.config.encoder is None:
            source, read = None, jnp.zeros((*rows, job.sequence_length), jnp.int32)
        else:
            tokens = jnp.zeros((*rows, job.sequence_length), jnp.int32)
            source, read = Text(tokens, tokens, tokens), jnp.zeros((*rows, job.target_length), jnp.int32)
        return Batch(read, read, read, read, read.astype(jnp.float32), source)

    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), jax.eval_shape(zeros))
