"""How likely continuations are behind their contexts, many at a time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from lesa_jax.base.errors import InputError
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.buckets import bucket_of, by_shape, padded
from lesa_jax.models.decoder import forward, head
from lesa_jax.models.losses import token_scores


class Row(NamedTuple):
    """Tokens that are read, and the last `count` of the tokens that come after each of them."""

    read: list[int]
    after: list[int]

    @property
    def shape(self) -> tuple[int, int]:
        """Of the arrays that it is laid into: a program for each."""
        return bucket_of(len(self.read)), bucket_of(len(self.after))


class Score(NamedTuple):
    """Of a continuation: its log-likelihood in nats, and whether each token of it is the likeliest in its place."""

    log_likelihood: float
    likeliest: bool


def row_of(context: Sequence[int], continuation: Sequence[int], longest: int) -> Row:
    """What is read to score a continuation: all but its last token, of that the last `longest` tokens.

    Raises InputError for a continuation that is longer, or has no token, and where nothing stands before it.
    """
    if not (context and 1 <= len(continuation) <= longest):
        raise InputError(
            f"a task has a continuation of {len(continuation)} tokens behind {len(context)}; there must be some before "
            f"it, and it can have 1 to {longest}, as many as the model reads"
        )
    return Row([*context, *continuation][-(longest + 1) : -1], list(continuation))


def scores(
    params: dict[str, Any],
    config: ModelConfig,
    rows: Sequence[Row],
    batch_size: int,
    dtype: DTypeLike = jnp.float32,
    advance: Callable[[int], None] = lambda rows: None,
) -> list[Score]:
    """The scores of rows, in their order; rows of like lengths share a batch and a program.

    `advance` is called with the number of rows just done.
    """
    found: list[Score | None] = [None] * len(rows)
    for members in by_shape([row.shape for row in rows], batch_size):
        batch = [rows[number] for number in members]
        tokens, _ = padded([row.read for row in batch], batch_size)
        targets, _ = padded([row.after for row in batch], batch_size)
        starts = np.zeros(batch_size, np.int32)
        starts[: len(batch)] = [len(row.read) - len(row.after) for row in batch]
        with jax.default_matmul_precision("highest"):
            nll, likeliest = map(np.asarray, _batch_scores(params, tokens, targets, starts, config, jnp.dtype(dtype)))
        for number, own_nll, own_likeliest in zip(members, nll, likeliest, strict=False):
            count = len(rows[number].after)
            found[number] = Score(-float(own_nll[:count].sum(dtype=np.float64)), bool(own_likeliest[:count].all()))
        advance(len(batch))
    return [score for score in found if score is not None]


@partial(jax.jit, static_argnames=("config", "dtype"))
def _batch_scores(
    params: dict[str, Any],
    tokens_BxT: Int[Array, "batch tokens"],
    targets_BxC: Int[Array, "batch continuation"],
    starts_B: Int[Array, " batch"],
    config: ModelConfig,
    dtype: DTypeLike,
) -> tuple[Float[Array, "batch continuation"], Bool[Array, "batch continuation"]]:
    """Of the targets from these places on. Only there are there logits: of a long context they would be most of the
    work of a small model with a large vocabulary."""
    hidden_BxTxE = forward(params, tokens_BxT, config, dtype)
    places_BxC = starts_B[:, None] + jnp.arange(targets_BxC.shape[1])[None]  # beyond the end is not counted
    places_BxC = jnp.minimum(places_BxC, tokens_BxT.shape[1] - 1)
    return token_scores(
        jnp.take_along_axis(hidden_BxTxE, places_BxC[:, :, None], axis=1), head(params, config), targets_BxC
    )
