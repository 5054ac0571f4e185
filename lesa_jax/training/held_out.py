"""The losses on held-out texts while a model trains."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import option
from lesa_jax.checkpoint.names import Tree
from lesa_jax.evaluation.perplexity import Perplexity, perplexity_of
from lesa_jax.evaluation.protocol import token_rows
from lesa_jax.evaluation.targets import target_pairs, target_perplexity
from lesa_jax.models.decoder import head, make_context
from lesa_jax.models.encoder_decoder import shifted_right, whole_rows
from lesa_jax.models.losses import token_nll
from lesa_jax.training.job import TrainJob
from lesa_jax.training.mask import Mask
from lesa_jax.training.segments import merge
from lesa_jax.training.settings import HELD_OUT_TEXTS
from lesa_jax.training.step import Program, hidden_states, pair_states

# Trained and frozen tree, steps done, whether it is time to stop, and the program -> what was measured, by the metrics'
# names.
Evaluation = Callable[[Tree, Tree, int, Callable[[], bool], Program], dict[str, Perplexity]]


class StoppedError(Exception):
    """It was time to stop while the loss was measured."""


def make_evaluation(job: TrainJob) -> Evaluation | None:
    """The losses of the predicted tokens of each of `job.texts`, in the training's own dtype; None without any.

    Of an encoder-decoder the tokens of targets are predicted.

    Raises:
      InputError: a text has nothing to predict.
    """
    held_out, protocol = job.settings.held_out, job.settings.held_out.ppl_protocol
    rows_of, measure, losses_of = token_rows, perplexity_of, segment_nll
    if job.config.encoder is not None:
        rows_of, measure, losses_of = target_pairs, target_perplexity, pair_nll
    texts: dict[str, Sequence[Any]] = {
        name: rows_of(job.tokenizer, text, protocol, job.config, job.sequence_length)
        for name, text in job.texts.items()
    }
    for name, rows in texts.items():
        if not rows:
            setting = HELD_OUT_TEXTS[name]
            file = getattr(held_out, setting)
            raise InputError(f"{option(setting)} {file}: has fewer than two tokens; give a longer one")
    if not texts:
        return None
    # Several processes give the same rows, and every one of them needs all of the result.
    losses_program = jax.jit(losses_of, static_argnames="program", out_shardings=NamedSharding(job.mesh, P()))

    def evaluate(
        trained: Tree, frozen: Tree, step: int, stop: Callable[[], bool], program: Program
    ) -> dict[str, Perplexity]:
        def nll_of(*rows: np.ndarray) -> Array:
            return losses_program(trained, frozen, *rows, step=np.int32(step), program=program)

        def go_on(rows: int) -> None:
            if stop():
                raise StoppedError

        size = job.settings.batch.batch_size
        return {name: measure(nll_of, rows, protocol, min(len(rows), size), go_on) for name, rows in texts.items()}

    return evaluate


def base_program(job: TrainJob) -> Program | None:
    """What computes the original's losses before the first step: the grown model under a mask that leaves its new
    layers out. None where none is known to be new, or where training begins under such a mask."""
    if job.growth is None or job.program.mask is not None or job.settings.init != "checkpoint":
        return None
    *encoder, layers = (stack.new_layers for stack in job.growth.plan.stacks)
    return replace(job.program, mask=Mask(layers, 1, *encoder))


def pair_nll(
    trained: Tree,
    frozen: Tree,
    sources_BxS: Int[Array, "batch source"],
    counted_BxS: Bool[Array, "batch source"],
    targets_BxT: Int[Array, "batch target"],
    step: Int[Array, ""],
    program: Program,
) -> Float[Array, "batch target"]:
    """Loss of every token of the targets."""
    params, read = merge(trained, frozen), whole_rows(shifted_right(targets_BxT, program.config))
    x_BxTxE = pair_states(params, whole_rows(sources_BxS, counted_BxS), read, program, step)
    return token_nll(x_BxTxE, head(params, program.config), targets_BxT)


def segment_nll(
    trained: Tree,
    frozen: Tree,
    tokens_BxT: Int[Array, "batch tokens"],
    step: Int[Array, ""],
    program: Program,
) -> Float[Array, "batch predicted"]:
    """Loss of every token but the first of each row."""
    params = merge(trained, frozen)
    positions = jnp.arange(tokens_BxT.shape[1])[None]
    context = make_context(positions, program.config)
    x_BxTxE = hidden_states(params, tokens_BxT, positions, context, program, step)
    return token_nll(x_BxTxE[:, :-1], head(params, program.config), tokens_BxT[:, 1:])
