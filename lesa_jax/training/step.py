"""One training step: the gradient of the trained tree, clipped, through AdamW; nothing for the frozen tree.

The gradient is taken with respect to the trained tree only. So frozen layers have no weight gradient, what lies below
the first trained layer has no backward pass, and optimiser state exists for trained leaves alone.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.decoder import Context, embed, final_norm, head, make_context
from lesa_jax.models.losses import summed_nll
from lesa_jax.training.mask import Mask
from lesa_jax.training.optimizer import Optimizer, learning_rate, make_transformation
from lesa_jax.training.segments import Segment, merge, run_segments
from lesa_jax.training.settings import Remat
from lesa_jax.training.state import TrainState


@dataclass(frozen=True)
class Program:
    """What is compiled: a static argument of `jax.jit`."""

    config: ModelConfig
    segments: tuple[Segment, ...]
    dtype: str
    remat: Remat
    train_head: bool
    mask: Mask | None = None

    def shares(self, step: int | Int[Array, ""]) -> Float[Array, " layers"] | None:
        """See `Mask`; None without one."""
        return None if self.mask is None else self.mask.shares(step, self.config.num_layers)


@flax.struct.dataclass
class Batch:
    """Packed sequences.

    `documents` numbers the documents of a row (0: padding), `positions` restart in each. `weights` are 1 where a target
    counts: it lies in its input's document and is meant to be learned.
    """

    tokens: Int[Array, "*accumulate batch tokens"]
    targets: Int[Array, "*accumulate batch tokens"]
    documents: Int[Array, "*accumulate batch tokens"]
    positions: Int[Array, "*accumulate batch tokens"]
    weights: Float[Array, "*accumulate batch tokens"]


def hidden_states(
    params: Tree,
    tokens: Int[Array, "batch tokens"],
    positions: Int[Array, "rows tokens"],
    context: Context,
    program: Program,
    step: int | Int[Array, ""],
) -> Float[Array, "batch tokens hidden"]:
    """Hidden states after the final norm, from merged trees; `step` tells how far a mask has risen."""
    x_BxTxE = embed(params, tokens, positions, program.config, jnp.dtype(program.dtype))
    x_BxTxE = run_segments(
        params, x_BxTxE, program.segments, context, program.config, program.remat, program.shares(step)
    )
    return final_norm(params, x_BxTxE, program.config)


def loss_sum(
    trained: Tree, frozen: Tree, batch: Batch, step: int | Int[Array, ""], program: Program
) -> Float[Array, ""]:
    """Summed loss of a batch [batch, tokens], in nats."""
    config = program.config
    params = merge(trained, jax.lax.stop_gradient(frozen))
    context = make_context(batch.positions, config, batch.documents)
    x_BxTxE = hidden_states(params, batch.tokens, batch.positions, context, program, step)
    return summed_nll(x_BxTxE, head(params, config), batch.targets, batch.weights, program.train_head)


def mean_gradient(
    trained: Tree, frozen: Tree, batch: Batch, program: Program, step: int | Int[Array, ""] = 0
) -> tuple[Array, Array, Tree]:
    """Mean loss of the counted tokens, their number, and the mean's gradient.

    A batch [accumulate, batch, tokens] is taken part by part: activations exist for one part at a time.
    """
    gradient_of = jax.value_and_grad(functools.partial(loss_sum, program=program))

    def add(total: tuple[Array, Tree], part: Batch) -> tuple[tuple[Array, Tree], None]:
        return jax.tree.map(jnp.add, total, gradient_of(trained, frozen, part, step)), None

    if batch.tokens.shape[0] == 1:
        loss, gradient = gradient_of(trained, frozen, jax.tree.map(lambda x: x[0], batch), step)
    else:
        zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, trained)
        (loss, gradient), _ = jax.lax.scan(add, zero, batch)
    count = jnp.maximum(jnp.sum(batch.weights), 1)
    return loss / count, count, jax.tree.map(lambda g: g / count, gradient)


def train_step(
    state: TrainState,
    frozen: Tree,
    batch: Batch,
    program: Program,
    optimizer: Optimizer,
) -> tuple[TrainState, dict[str, Array]]:
    """The next state, and this step's loss, grad_norm, learning_rate, tokens (counted) and sound.

    From the first loss or gradient on that is not finite, parameters and optimiser stay as they are. `sound` also says
    whether what the update made is finite; the update is not undone, for nothing keeps the state before it.
    """
    # From a share of 0 nothing could be learned, so the first step already has the first share above it.
    loss, tokens, gradient = mean_gradient(state.params, frozen, batch, program, state.step + 1)
    norm = optax.tree.norm(gradient)
    sound = state.sound & jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, moments = make_transformation(optimizer).update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    params, moments = jax.tree.map(
        lambda new, old: jnp.where(sound, new, old), (params, moments), (state.params, state.optimizer)
    )
    sound = sound & all_finite((params, moments))
    metrics = {
        "loss": loss,
        "grad_norm": norm,
        "learning_rate": learning_rate(optimizer)(state.step),
        "tokens": tokens,
        "sound": sound,
    }
    return TrainState(state.step + 1, params, moments, sound), metrics


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether all numbers of a tree are."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def compile_step(
    program: Program, optimizer: Optimizer, placed: TrainState, mesh: Mesh
) -> Callable[[TrainState, Tree, Batch], tuple[TrainState, dict[str, Array]]]:
    """`train_step` as one program that reuses the state's memory, its results pinned to the mesh.

    Runs of one shape in one process share the compiled program.
    """
    step = jax.jit(
        train_step,  # itself, no function made here: JAX finds programs by the function
        static_argnames=("program", "optimizer"),
        donate_argnums=0,
        out_shardings=(placed, NamedSharding(mesh, P())),
    )
    return functools.partial(step, program=program, optimizer=optimizer)
