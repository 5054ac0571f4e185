"""One training step: the gradient of the trained tree, clipped, through the optimiser; nothing for the frozen tree.

The gradient is taken with respect to the trained tree only. So frozen layers have no weight gradient, what lies below
the first trained layer has no backward pass, and optimiser state exists for trained leaves alone.
"""

import functools
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import ModelConfig
from lesa_jax.models import encoder_decoder
from lesa_jax.models.decoder import Context, embed, final_norm, head, make_context
from lesa_jax.models.encoder_decoder import Sight, Text
from lesa_jax.models.experts import RouterLosses
from lesa_jax.models.losses import summed_nll
from lesa_jax.models.views import View
from lesa_jax.parallel.mesh import by_rows
from lesa_jax.training.gathering import product_axes
from lesa_jax.training.mask import Mask
from lesa_jax.training.narrow import Wide
from lesa_jax.training.optimizer import Rule, make_transformation, moved_average, scale
from lesa_jax.training.segments import ENCODER, SEGMENTS, Segment, merge, run_segments
from lesa_jax.training.settings import Remat
from lesa_jax.training.state import TrainState


@dataclass(frozen=True)
class Program:
    """What is compiled: a static argument of `jax.jit`.

    `balance` and `z` are the weights of the routers' losses (`models.experts.RouterLosses`), means over the layers that
    have experts.
    """

    config: ModelConfig
    segments: tuple[Segment, ...]
    dtype: str
    remat: Remat
    train_head: bool
    mask: Mask | None = None
    encoder: tuple[Segment, ...] = ()
    balance: float = 0.0
    z: float = 0.0

    def shares(self, step: int | Int[Array, ""], encoder: bool = False) -> Float[Array, " layers"] | None:
        """See `Mask`; None without one."""
        if self.mask is None:
            return None
        if encoder and self.config.encoder is not None:
            return self.mask.of_encoder().shares(step, self.config.encoder.num_layers)
        return self.mask.shares(step, self.config.num_layers)


@flax.struct.dataclass
class Batch:
    """Packed sequences.

    `documents` numbers the documents of a row (0: padding), `positions` restart in each. `weights` are 1 where a target
    counts: it lies in its input's document and is meant to be learned. An encoder-decoder reads `source` beside them.
    JAX also puts in shapes and what else it knows of arrays.
    """

    tokens: Int[Any, "*accumulate batch tokens"]
    targets: Int[Any, "*accumulate batch tokens"]
    documents: Int[Any, "*accumulate batch tokens"]
    positions: Int[Any, "*accumulate batch tokens"]
    weights: Float[Any, "*accumulate batch tokens"]
    source: Text | None = None

    @classmethod
    def of_rows(cls, rows: Mapping[str, Any]) -> "Batch":
        """Of the arrays that data gives for a row, or for several."""
        source = None
        if "source_tokens" in rows:
            source = Text(*(rows[f"source_{field}"] for field in ("tokens", "segment_ids", "positions")))
        read = rows["tokens"], rows["targets"]
        return cls(*read, rows["segment_ids"], rows["positions"], rows["weights"], source)


class Losses(NamedTuple):
    """Means over a step's tokens: nats a token, and of the routers' losses over layers; None without experts."""

    nll: Float[Array, ""]
    balance: Float[Array, ""] | None = None
    z: Float[Array, ""] | None = None


def hidden_states(
    params: Tree,
    tokens: Int[Array, "batch tokens"],
    positions: Int[Array, "rows tokens"],
    context: Context,
    program: Program,
    step: int | Int[Array, ""],
) -> Float[Array, "batch tokens hidden"]:
    """Hidden states after the final norm, from merged trees; `step` tells how far a mask has risen."""
    return routed_states(params, tokens, positions, context, program, step)[0]


def routed_states(
    params: Tree,
    tokens: Int[Array, "batch tokens"],
    positions: Int[Array, "rows tokens"],
    context: Context,
    program: Program,
    step: int | Int[Array, ""],
) -> tuple[Float[Array, "batch tokens hidden"], RouterLosses]:
    """`hidden_states`, and the routers' losses summed over the layers."""
    x_BxTxE = by_rows(embed(params, tokens, positions, program.config, jnp.dtype(program.dtype)))
    x_BxTxE, losses = run_segments(
        params, x_BxTxE, program.segments, context, program.config, program.remat, program.shares(step)
    )
    return final_norm(params, x_BxTxE, program.config), losses


def pair_block(
    layer: Tree, x_BxTxE: Float[Array, "batch tokens hidden"], sight: Sight, seen: View, config: ModelConfig
) -> tuple[Float[Array, "batch tokens hidden"], None]:
    """A layer of an encoder-decoder, which has no router."""
    return encoder_decoder.block(layer, x_BxTxE, sight, seen, config), None


def pair_states(
    params: Tree, source: Text, target: Text, program: Program, step: int | Int[Array, ""]
) -> Float[Array, "batch tokens hidden"]:
    """The same of an encoder-decoder; `target` is what its decoder reads."""

    def run(stack: ModelConfig, x_BxTxE: Array, sight: Sight) -> Array:
        shares = program.shares(step, encoder=stack.encoder is None)
        if stack.encoder is None:
            layers, segments = params[SEGMENTS][ENCODER], program.encoder
        else:
            layers, segments = params[SEGMENTS], program.segments
        return run_segments({SEGMENTS: layers}, x_BxTxE, segments, sight, stack, program.remat, shares, pair_block)[0]

    return encoder_decoder.hidden_states(params, source, target, program.config, run, jnp.dtype(program.dtype))


def batch_states(
    params: Tree, batch: Batch, program: Program, step: int | Int[Array, ""]
) -> tuple[Float[Array, "batch tokens hidden"], RouterLosses]:
    """`routed_states` of a batch [batch, tokens], from merged trees."""
    if batch.source is None:
        context = make_context(batch.positions, program.config, batch.documents)
        return routed_states(params, batch.tokens, batch.positions, context, program, step)
    target = Text(batch.tokens, batch.documents, batch.positions)
    return pair_states(params, batch.source, target, program, step), RouterLosses()


def loss_sum(
    trained: Tree, frozen: Tree, batch: Batch, step: int | Int[Array, ""], program: Program
) -> tuple[Float[Array, ""], Losses]:
    """What is to be made small of a batch [batch, tokens], summed over its tokens, and what it is made of."""
    config = program.config
    params = merge(trained, jax.lax.stop_gradient(frozen))
    x_BxTxE, routers = batch_states(params, batch, program, step)
    nll: Array = summed_nll(x_BxTxE, head(params, config), batch.targets, batch.weights, program.train_head)
    if not any(config.sparse):
        return nll, Losses(nll)
    of_a_token = jnp.sum(batch.weights) / sum(config.sparse)  # so that a batch's parts count by their tokens
    balance, z = routers.balance * of_a_token, routers.z * of_a_token
    return nll + program.balance * balance + program.z * z, Losses(nll, balance, z)


def narrow_leaves(program: Program) -> frozenset[tuple[str, ...]]:
    """The paths of the leaves that products read in the program's dtype, where that is not float32."""
    if program.dtype == "float32":
        return frozenset()
    stacks: list[tuple[tuple[str, ...], ModelConfig, tuple[Segment, ...]]]
    stacks = [((SEGMENTS,), program.config, program.segments)]
    if program.config.encoder is not None:
        stacks.append(((SEGMENTS, ENCODER), program.config.encoder, program.encoder))
    return frozenset(
        (*where, str(number), str(place), *path)
        for where, config, segments in stacks
        for number, segment in enumerate(segments)
        for place in range(segment.width)
        for path in product_axes(config, segment.start + place)
    )


def sinks(trained: Tree, narrow: Set[tuple[str, ...]], dtype: DTypeLike) -> Tree:
    """What the gradient is taken of: sinks for narrow leaves, other leaves themselves."""
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(trained))
    return unflatten_dict(
        {path: jnp.zeros(leaf.shape, dtype) if path in narrow else leaf for path, leaf in flat.items()}
    )


def widened(trained: Tree, learned: Tree, narrow: Set[tuple[str, ...]]) -> Tree:
    """The trained tree with the leaves that `sinks` gave in their place."""
    flat, values = dict(flatten_dict(learned)), flatten_dict(trained)
    return unflatten_dict({path: Wide(values[path], leaf) if path in narrow else leaf for path, leaf in flat.items()})


def mean_gradient(
    trained: Tree, frozen: Tree, batch: Batch, program: Program, step: int | Int[Array, ""] = 0
) -> tuple[Losses, Array, Tree]:
    """Mean losses of the counted tokens, their number, and the gradient of the mean of what is to be made small.

    Matrices of layers have a gradient in the dtype that products read them in, summed over parts in float32. A batch
    [accumulate, batch, tokens] is taken part by part: activations exist for one part at a time.
    """
    takes = narrow_leaves(program)

    def loss_of(learned: Tree, part: Batch) -> tuple[Array, Losses]:
        return loss_sum(widened(trained, learned, takes), frozen, part, step, program)

    def both_of(part: Batch) -> tuple[Tree, Losses]:
        return jax.grad(loss_of, has_aux=True)(sinks(trained, takes, jnp.dtype(program.dtype)), part)

    def add(total: tuple[Tree, Losses], part: Batch) -> tuple[tuple[Tree, Losses], None]:
        return jax.tree.map(jnp.add, total, both_of(part)), None

    if batch.tokens.shape[0] == 1:
        sums = both_of(jax.tree.map(lambda x: x[0], batch))
    else:
        routers = (jnp.zeros(()), jnp.zeros(())) if any(program.config.sparse) else ()
        zero = jax.tree.map(jnp.zeros_like, trained), Losses(jnp.zeros(()), *routers)
        sums, _ = jax.lax.scan(add, zero, batch)
    count = jnp.maximum(jnp.sum(batch.weights), 1)
    gradient, losses = jax.tree.map(lambda x: x / count, sums)
    return losses, count, gradient


def train_step(
    state: TrainState,
    frozen: Tree,
    batch: Batch,
    rate: Float[Array, ""],
    program: Program,
    rule: Rule,
) -> tuple[TrainState, dict[str, Array]]:
    """The next state at a learning rate, and this step's loss, grad_norm, learning_rate, tokens (counted) and sound.

    Of models with experts also balance_loss and z_loss.

    From the first loss or gradient on that is not finite, parameters and optimiser stay as they are. `sound` also says
    whether what the update made is finite; the update is not undone, for nothing keeps the state before it.
    """
    # From a share of 0 nothing could be learned, so the first step already has the first share above it.
    losses, tokens, gradient = mean_gradient(state.params, frozen, batch, program, state.step + 1)
    norm = optax.tree.norm(gradient)
    sound = state.sound & jnp.isfinite(losses.nll) & jnp.isfinite(norm)
    updates, moments = make_transformation(rule).update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, scale(updates, rate, rule))
    params, moments = jax.tree.map(
        lambda new, old: jnp.where(sound, new, old), (params, moments), (state.params, state.optimizer)
    )
    sound = sound & all_finite((params, moments))
    average = None
    if state.average is not None:
        moved = moved_average(state.average, params, state.step + 1, rule.ema)
        average = jax.tree.map(lambda new, old: jnp.where(sound, new, old), moved, state.average)
    metrics = {
        "loss": losses.nll,
        "grad_norm": norm,
        "learning_rate": rate,
        "tokens": tokens,
        "sound": sound,
    }
    if losses.balance is not None and losses.z is not None:
        metrics |= {"balance_loss": losses.balance, "z_loss": losses.z}
    return TrainState(state.step + 1, params, moments, sound, average), metrics


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether all numbers of a tree are."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def compile_step(
    program: Program, rule: Rule, placed: TrainState, mesh: Mesh
) -> Callable[[TrainState, Tree, Batch, np.float32], tuple[TrainState, dict[str, Array]]]:
    """`train_step` as one program that reuses the state's memory, its results pinned to the mesh.

    Runs of one shape in one process share the compiled program.
    """
    return functools.partial(jitted_step(placed, mesh), program=program, rule=rule)


def jitted_step(placed: TrainState, mesh: Mesh) -> Any:
    """`train_step` under `jax.jit`, for a state that lies so on the mesh."""
    return jax.jit(
        train_step,  # itself, no function made here: JAX finds programs by the function
        static_argnames=("program", "rule"),
        donate_argnums=0,
        out_shardings=(placed, NamedSharding(mesh, P())),
    )
