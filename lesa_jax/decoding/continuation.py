"""Texts gone on with, several at a time, in programs of a few tokens each.

How many tokens a text gets is known when it ends; so a program writes a few, and then it is seen which texts are done.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from lesa_jax.base.errors import InputError
from lesa_jax.decoding.sampling import LIKELIEST, Sampling, choose
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.buckets import bucket_of, padded
from lesa_jax.models.cached import Cache, read_next, read_texts

CHUNK = 16  # tokens that a program writes

Tokens = list[int]


class State(NamedTuple):
    """Texts that are under way.

    Attributes:
      logits: of their next tokens.
      positions: of those.
      reaches: the lengths that texts may grow to.
      keys: of the random numbers of each text.
      cache: of what was read.
    """

    logits: Float[Array, "batch vocab"]
    positions: Int[Array, " batch"]
    reaches: Int[Array, " batch"]
    keys: Key[Array, " batch"]
    cache: Cache


def continuations(
    params: dict[str, Any],
    config: ModelConfig,
    texts: Sequence[Sequence[int]],
    limit: int,
    sampling: Sampling = LIKELIEST,
    seed: int = 0,
    ends: Collection[int] = (),
    finished: Callable[[int, Tokens], bool] = lambda text, tokens: False,
) -> Iterator[list[Tokens]]:
    """What the model writes behind each text; all there is of it, time after time, and whole at last.

    A text's tokens do not depend on what else is in the batch, up to rounding.

    Args:
      params, config: of a decoder.
      texts: tokens, at least one each.
      limit: tokens that are written at most.
      sampling: how they are chosen, by random numbers from `seed` and the text's number.
      ends: tokens that end a text; they are not part of what is written.
      finished: whether a text, by its number, needs no more tokens than these.

    Raises:
      InputError: texts longer than a learned table of positions, with what may be written.
    """
    lengths = np.array([len(text) for text in texts])
    reaches = lengths + limit
    if config.names.positions is not None and reaches.max() > config.max_position_embeddings:
        raise InputError(
            f"{lengths.max()} tokens and {limit} to be written, but the model has {config.max_position_embeddings} "
            "positions; give a shorter text, or write fewer"
        )
    tokens, _ = padded(texts, len(texts))
    places = bucket_of(tokens.shape[1] + limit)
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(len(texts)))

    def chunks() -> Iterator[Int[Array, "chunk batch"]]:
        with jax.default_matmul_precision("highest"):
            logits, cache = _read(params, tokens, lengths, reaches, config, places)
        state = State(logits, jnp.asarray(lengths), jnp.asarray(reaches), keys, cache)
        while True:
            with jax.default_matmul_precision("highest"):
                state, chunk = _write(params, state, config, sampling)
            yield chunk

    yield from gathered(chunks(), len(texts), limit, ends, finished)


def gathered(
    chunks: Iterator[Int[Array, "chunk batch"]],
    texts: int,
    limit: int,
    ends: Collection[int],
    finished: Callable[[int, Tokens], bool] = lambda text, tokens: False,
) -> Iterator[list[Tokens]]:
    """Chunks as texts, each up to what ends it; no more chunks than the texts want. See `continuations`."""
    written: list[Tokens] = [[] for _ in range(texts)]
    open_ = set(range(texts))
    for _ in range(0, limit, CHUNK):
        for text, row in enumerate(np.asarray(next(chunks)).T):
            if text in open_:
                done = _append(written[text], row.tolist(), limit, ends)
                if done or finished(text, written[text]):
                    open_.remove(text)
        yield written
        if not open_:
            return


def _append(written: Tokens, chunk: Tokens, limit: int, ends: Collection[int]) -> bool:
    """Adds tokens up to one that ends the text, or to the limit; returns whether either came."""
    for token in chunk:
        if token in ends:
            return True
        written.append(token)
        if len(written) == limit:
            return True
    return False


@partial(jax.jit, static_argnames=("config", "places"))
def _read(
    params: dict[str, Any], tokens: Array, lengths: Array, reaches: Array, config: ModelConfig, places: int
) -> tuple[Array, Cache]:
    return read_texts(params, tokens, lengths, reaches, config, places)


@partial(jax.jit, static_argnames=("config", "sampling"), donate_argnames="state")
def _write(
    params: dict[str, Any], state: State, config: ModelConfig, sampling: Sampling
) -> tuple[State, Int[Array, "chunk batch"]]:
    """The state a chunk of tokens later, and those. Texts that are done go on; what is written beyond the last place is
    dropped."""

    def step(state: State, _: None) -> tuple[State, Array]:
        keys = jax.vmap(jax.random.fold_in)(state.keys, state.positions)
        tokens = choose(state.logits, keys, sampling)
        logits, cache = read_next(params, tokens, state.positions, state.reaches, state.cache, config)
        return state._replace(logits=logits, positions=state.positions + 1, cache=cache), tokens

    return jax.lax.scan(step, state, length=CHUNK)
