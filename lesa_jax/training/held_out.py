"""The loss on a held-out text while a model trains."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.names import Tree
from lesa_jax.evaluation.perplexity import perplexity_of
from lesa_jax.evaluation.protocol import token_rows
from lesa_jax.models.decoder import head, make_context
from lesa_jax.models.losses import token_nll
from lesa_jax.training.job import TrainJob
from lesa_jax.training.segments import merge
from lesa_jax.training.step import Program, hidden_states

# Trained and frozen tree, steps done, and whether it is time to stop -> mean loss in nats.
Evaluation = Callable[[Tree, Tree, int, Callable[[], bool]], float]


class StoppedError(Exception):
    """It was time to stop while the loss was measured."""


def make_evaluation(job: TrainJob) -> Evaluation | None:
    """The mean loss of a predicted token of `--eval-text`, in nats, in the training's own dtype.

    Raises:
      InputError: the text has nothing to predict.
    """
    if job.eval_text is None:
        return None
    protocol = job.settings.held_out.ppl_protocol
    rows = token_rows(job.tokenizer, job.eval_text, protocol, job.config, job.sequence_length)
    if not rows:
        raise InputError(f"--eval-text {job.settings.held_out.eval_text}: has fewer than two tokens; give a longer one")
    # Several processes give the same rows, and every one of them needs all of the result.
    program = jax.jit(segment_nll, static_argnums=4, out_shardings=NamedSharding(job.mesh, P()))

    def evaluate(trained: Tree, frozen: Tree, step: int, stop: Callable[[], bool]) -> float:
        def nll_of(tokens_BxT: np.ndarray) -> Array:
            return program(trained, frozen, tokens_BxT, np.int32(step), job.program)

        def go_on(rows: int) -> None:
            if stop():
                raise StoppedError

        batch_size = min(len(rows), job.settings.batch.batch_size)
        return perplexity_of(nll_of, rows, protocol, batch_size, advance=go_on).nll

    return evaluate


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
