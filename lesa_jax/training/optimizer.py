"""The update rule, AdamW or Muon, and the learning rate over a run.

The rate is an argument of the compiled step and no part of its program: runs that differ in nothing else share it.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.roles import is_linear, writes_residual
from lesa_jax.training.segments import SEGMENTS
from lesa_jax.training.settings import MomentsDtype, OptimizerName, OptimizerSettings

WARMUP = 0.03  # the share of all steps that the learning rate rises in, unless it is given
BLOCK = 1024  # steps whose learning rates are computed at once
WSD_DECAY = 0.2  # the share of a warm-up-stable-decay run that decays (arXiv 2405.18392)
# Muon's momentum, and its updates' root mean square over the learning rate, which is about AdamW's: rates carry over
# from one to the other (arXiv 2502.16982).
MOMENTUM, RMS = 0.95, 0.2
NEWTON_SCHULZ = 5  # iterations
# Of an array the last two axes are a matrix; those of layers lie before them.
MATRIX = optax.contrib.MuonDimensionNumbers(reduction_axis=-1, output_axis=-2)


# Of each leaf that holds new layers, which of its rows these are; none where all layers have one rate.
NewRows = tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]


@dataclass(frozen=True)
class Rule:
    """What an update is, but for the learning rate: a static argument of the compiled step."""

    name: OptimizerName
    betas: tuple[float, float]
    weight_decay: float
    clip: float
    output_rate: float
    ema: float = 0.0
    new_rate: float = 1.0
    new: "NewRows" = ()
    moments: MomentsDtype = "float32"


@dataclass(frozen=True)
class Optimizer:
    """A rule over `steps` steps; `new` says which rows of what leaves are new layers."""

    settings: OptimizerSettings
    steps: int
    new: NewRows = ()

    @property
    def rule(self) -> Rule:
        settings = self.settings
        return Rule(
            settings.optimizer,
            settings.betas,
            settings.weight_decay,
            settings.clip,
            settings.output_rate,
            settings.ema,
            settings.new_rate,
            self.new,
            settings.moments,
        )

    @property
    def warmup(self) -> int:
        """Steps in which the learning rate rises."""
        warmup = self.settings.warmup
        return round(WARMUP * self.steps) if warmup is None else warmup


def learning_rate(optimizer: Optimizer) -> optax.Schedule:
    """Step number to learning rate: linear warm-up from 0, then cosine or linear to 0, or constant and linear to 0."""
    peak, warmup = optimizer.settings.learning_rate, optimizer.warmup
    rest = max(1, optimizer.steps - warmup)
    match optimizer.settings.schedule:
        case "cosine":
            after = optax.cosine_decay_schedule(peak, rest)
        case "linear":
            after = optax.linear_schedule(peak, 0.0, rest)
        case "wsd":
            decay = max(1, round(rest * WSD_DECAY))
            after = optax.linear_schedule(peak, 0.0, decay, transition_begin=rest - decay)
    # The first step has a rate above 0, the last one too.
    return optax.join_schedules([optax.linear_schedule(peak / (warmup + 1), peak, max(1, warmup)), after], [warmup])


def rates(optimizer: Optimizer, first: int) -> Iterator[np.float32]:
    """The learning rates of the steps from `first` on, known before they are needed: no step waits for one.

    They come in blocks that begin at multiples of BLOCK, so that a run which goes on has the very bits of one that was
    never stopped.
    """
    schedule = jax.jit(learning_rate(optimizer))
    for start in itertools.count(first // BLOCK * BLOCK, BLOCK):
        block = np.asarray(schedule(np.arange(start, start + BLOCK)), np.float32)
        yield from block[max(0, first - start) :]


def make_transformation(rule: Rule) -> optax.GradientTransformation:
    """Clip by the trained leaves' global norm, the rule, decay for all but norms and biases; the rate comes after.

    Muon is for matrices inside layers, all of them or those that write into the residual stream; what is left to AdamW
    are the other matrices, norms, biases and what lies outside the layers.
    """
    adam = optax.scale_by_adam(*rule.betas, eps=1e-8)
    scaled = adam if rule.name == "adamw" else optax.partition({"adamw": adam, "muon": muon()}, rule_of(rule.name))
    kept = scaled if rule.moments == "float32" else kept_in(jnp.dtype(rule.moments), scaled)
    return optax.chain(
        optax.clip_by_global_norm(rule.clip), kept, optax.add_decayed_weights(rule.weight_decay, mask=decayed)
    )


def kept_in(dtype: DTypeLike, rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same rule, whose arrays are kept in another dtype between steps; it computes in float32."""

    def cast(state: Any, dtype: DTypeLike) -> Any:
        return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = rule.update(updates, cast(state, jnp.float32), params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(lambda params: cast(rule.init(params), dtype), update)


def muon() -> optax.GradientTransformation:
    """Momentum, orthogonalised matrix by matrix (Jordan 2024), of AdamW's size."""

    def matrices(params: Any) -> Any:
        return jax.tree.map(lambda leaf: MATRIX, params)

    def to_size(updates: Any, _: Any) -> Any:
        return jax.tree.map(lambda update: RMS * max(update.shape[-2:]) ** 0.5 * update, updates)

    orthogonal = optax.contrib.scale_by_muon(ns_steps=NEWTON_SCHULZ, beta=MOMENTUM, weight_dimension_numbers=matrices)
    return optax.chain(orthogonal, optax.stateless(to_size))


def rule_of(name: OptimizerName) -> Any:
    """Tree to tree: "muon" or "adamw" for each leaf."""

    def labels(params: Tree) -> Tree:
        flat: dict[tuple[str, ...], Any] = dict(flatten_dict(params))
        return unflatten_dict(
            {path: "muon" if by_muon(path, leaf.ndim, name) else "adamw" for path, leaf in flat.items()}
        )

    return labels


def moved_average(average: Tree, params: Tree, step: Int[Array, ""], decay: float) -> Tree:
    """The moving average after `step` steps; the first ones count for more than `decay` has them, for there is little
    to look back on: (1 + step) / (10 + step), as TensorFlow has it.
    """
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + (1 - kept) * (new - old), average, params)


def scale(updates: Any, rate: Float[Array, ""], rule: Rule) -> Tree:
    """Updates times minus the learning rate, that of the residual stream's writers times `output_rate`, that of new
    layers times `new_rate`.
    """
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(updates))
    outputs, new = rate if rule.output_rate == 1 else rate * rule.output_rate, dict(rule.new)

    def own_rate(path: tuple[str, ...], update: Array) -> Array:
        own = outputs if writes(path) else rate
        if path not in new:
            return own
        factors = np.ones((len(update), *[1] * (update.ndim - 1)), np.float32)
        factors[[*new[path]]] = rule.new_rate
        return own * factors

    return unflatten_dict({path: -own_rate(path, update) * update for path, update in flat.items()})


def decayed(params: Tree) -> Tree:
    """Which leaves decay: matrices and embeddings, no norms and no biases."""
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(params))
    return unflatten_dict(
        {path: is_matrix(path, leaf.ndim) if path[0] == SEGMENTS else leaf.ndim > 1 for path, leaf in flat.items()}
    )


def by_muon(path: tuple[str, ...], dimensions: int, name: OptimizerName) -> bool:
    """Whether Muon is what updates a leaf."""
    return name != "adamw" and is_matrix(path, dimensions) and (name == "muon" or writes(path))


def is_matrix(path: tuple[str, ...], dimensions: int) -> bool:
    """Whether a leaf is a stack of layers' matrices; norms that have rows, one for each head, are none."""
    return path[0] == SEGMENTS and dimensions > 2 and is_linear(".".join(path))


def writes(path: tuple[str, ...]) -> bool:
    """Whether a leaf is of layers and writes into the residual stream."""
    return path[0] == SEGMENTS and writes_residual(".".join(path))
