"""The losses on held-out texts, or on a part of the data that is held out, while a model trains."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import option
from lesa_jax.checkpoint.names import Tree
from lesa_jax.data.loader import stacked
from lesa_jax.evaluation.perplexity import Perplexity, perplexity_of, summarise
from lesa_jax.evaluation.protocol import token_rows
from lesa_jax.evaluation.targets import target_pairs, target_perplexity
from lesa_jax.models.decoder import head, make_context
from lesa_jax.models.encoder_decoder import shifted_right, whole_rows
from lesa_jax.models.losses import token_nll
from lesa_jax.training.job import TrainJob
from lesa_jax.training.mask import Mask
from lesa_jax.training.segments import merge
from lesa_jax.training.settings import HELD_OUT_TEXTS
from lesa_jax.training.step import Batch, Program, batch_states, hidden_states, pair_states

# Trained and frozen tree, steps done, whether it is time to stop, and the program -> what was measured, by the metrics'
# names.
Evaluation = Callable[[Tree, Tree, int, Callable[[], bool], Program], dict[str, Perplexity]]
# What gives the losses of a batch, and what is called with the number of rows just done -> the loss of all rows.
Measure = Callable[[Callable[..., Array], Callable[[int], None]], Perplexity]


class StoppedError(Exception):
    """It was time to stop while the loss was measured."""


class HeldOut(NamedTuple):
    """Something to measure on: the losses of one batch, by a program of the trees; and of all of it, by these."""

    batch_losses: Callable[..., Array]
    measure: Measure


def make_evaluation(job: TrainJob, unseen: Sequence[Mapping[str, np.ndarray]] = ()) -> Evaluation | None:
    """The losses of the predicted tokens of each of `job.texts`, in the training's own dtype; None without any.

    Of an encoder-decoder the tokens of targets are predicted. Rows of the data that training does not see take the
    place of a text of their kind.

    Raises:
      InputError: a text has nothing to predict.
    """
    found = {name: held_out_text(job, name) for name in job.texts}
    if unseen:
        found["eval_loss"] = held_out_rows(job, unseen)
    if not found:
        return None
    # Several processes give the same rows, and every one of them needs all of the result.
    programs = {
        name: jax.jit(one.batch_losses, static_argnames="program", out_shardings=NamedSharding(job.mesh, P()))
        for name, one in found.items()
    }

    def evaluate(
        trained: Tree, frozen: Tree, step: int, stop: Callable[[], bool], program: Program
    ) -> dict[str, Perplexity]:
        def go_on(rows: int) -> None:
            if stop():
                raise StoppedError

        given = {"step": np.int32(step), "program": program}
        return {
            name: one.measure(functools.partial(programs[name], trained, frozen, **given), go_on)
            for name, one in found.items()
        }

    return evaluate


def held_out_text(job: TrainJob, name: str) -> HeldOut:
    """One of `job.texts`, by the protocol that was asked for."""
    held_out, protocol = job.settings.held_out, job.settings.held_out.ppl_protocol
    rows_of, measure, losses = token_rows, perplexity_of, segment_nll
    if job.config.encoder is not None:
        rows_of, measure, losses = target_pairs, target_perplexity, pair_nll
    rows: Any = rows_of(job.tokenizer, job.texts[name], protocol, job.config, job.sequence_length)
    if not rows:
        setting = HELD_OUT_TEXTS[name]
        file = getattr(held_out, setting)
        raise InputError(f"{option(setting)} {file}: has fewer than two tokens; give a longer one")
    size = min(len(rows), sequences_at_once(job))
    return HeldOut(losses, lambda nll_of, go_on: measure(nll_of, rows, protocol, size, go_on))


def held_out_rows(job: TrainJob, rows: Sequence[Mapping[str, np.ndarray]]) -> HeldOut:
    """Rows as training has them, with its own losses: of an answer's tokens, of masked spans."""
    size = min(len(rows), sequences_at_once(job))

    def measure(sums_of: Callable[..., Array], go_on: Callable[[int], None]) -> Perplexity:
        sums, counts = [], []
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            # A last batch that is not full has empty rows, which have no weights.
            filled = {name: np.pad(x, ((0, size - len(part)), (0, 0))) for name, x in stacked(part).items()}
            batch = Batch.of_rows(filled)
            sums += np.asarray(sums_of(batch), np.float64).tolist()[: len(part)]
            counts += batch.weights.sum(axis=1).astype(int).tolist()[: len(part)]
            go_on(len(part))
        return summarise(sums, counts, job.settings.held_out.ppl_protocol)

    return HeldOut(row_nll, measure)


def sequences_at_once(job: TrainJob) -> int:
    """As many as a step has in memory."""
    return job.settings.batch.batch_size // job.settings.batch.accumulate


def base_program(job: TrainJob) -> Program | None:
    """What computes the original's losses before the first step: the grown model under a mask that leaves its new
    layers out. None where none is known to be new, or where training begins under such a mask."""
    if job.growth is None or job.program.mask is not None or job.settings.init != "checkpoint":
        return None
    *encoder, layers = (stack.new_layers for stack in job.growth.plan.stacks)
    return replace(job.program, mask=Mask(layers, 1, *encoder))


def row_nll(
    trained: Tree, frozen: Tree, batch: Batch, step: Int[Array, ""], program: Program
) -> Float[Array, " batch"]:
    """Losses of the tokens that count, summed over each row."""
    params = merge(trained, frozen)
    x_BxTxE, _ = batch_states(params, batch, program, step)
    return jnp.sum(token_nll(x_BxTxE, head(params, program.config), batch.targets) * batch.weights, axis=1)


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
