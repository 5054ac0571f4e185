"""What an encoder-decoder writes when it has read a text.

The text is read once. Of what was written no keys and values are kept, it is read again for every token: answers are
short, and there is one layer for both.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from lesa_jax.base.errors import InputError
from lesa_jax.decoding.continuation import CHUNK, Tokens, gathered
from lesa_jax.decoding.sampling import LIKELIEST, Sampling, choose
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.buckets import bucket_of, padded
from lesa_jax.models.decoder import final_norm, head
from lesa_jax.models.encoder_decoder import decoder_sight, embed_text, encode, run_stack, whole_rows
from lesa_jax.models.losses import logits_of


def answers(
    params: dict[str, Any],
    config: ModelConfig,
    source: Sequence[int],
    limit: int,
    sampling: Sampling = LIKELIEST,
    seed: int = 0,
    ends: Collection[int] = (),
) -> Iterator[list[Tokens]]:
    """What the model writes about a text, as `continuations` gives it of several.

    Raises:
      InputError: more tokens than a learned table has positions for.
    """
    most = max(len(source), limit + 1)
    if config.names.positions is not None and most > config.max_position_embeddings:
        raise InputError(
            f"{len(source)} tokens and {limit} to be written, but either part has {config.max_position_embeddings} "
            "positions; give a shorter text, or write fewer"
        )
    tokens, counted = padded([source], 1)
    places = min(bucket_of(limit + CHUNK), config.max_position_embeddings if config.names.positions else 1 << 30)
    key = jax.random.fold_in(jax.random.key(seed), 0)

    def chunks() -> Iterator[Int[Array, "chunk 1"]]:
        with jax.default_matmul_precision("highest"):
            encoded = _encoded(params, tokens, counted, config)
        read, place = jnp.full((1, places), config.start_token, jnp.int32), jnp.int32(0)
        while True:
            with jax.default_matmul_precision("highest"):
                read, chunk = _write(params, (encoded, tokens, counted), read, place, key, config, sampling)
            place = place + CHUNK
            yield chunk

    yield from gathered(chunks(), 1, limit, ends)


@partial(jax.jit, static_argnames="config")
def _encoded(
    params: dict[str, Any],
    tokens_1xS: Int[Array, "1 source"],
    counted_1xS: Bool[Array, "1 source"],
    config: ModelConfig,
) -> Float[Array, "1 source hidden"]:
    assert config.encoder is not None
    return encode(params, whole_rows(tokens_1xS, counted_1xS), config.encoder, run_stack(params), jnp.float32)


@partial(jax.jit, static_argnames=("config", "sampling"))
def _write(
    params: dict[str, Any],
    known: tuple[Array, Array, Array],
    read_1xT: Int[Array, "1 tokens"],
    place: Int[Array, ""],
    key: Key[Array, ""],
    config: ModelConfig,
    sampling: Sampling,
) -> tuple[Int[Array, "1 tokens"], Int[Array, "chunk 1"]]:
    """What the decoder reads with a chunk of tokens more behind this place, and those. What is written beyond the last
    place is dropped."""
    encoded, tokens, counted = known

    def step(read: Array, place: Array) -> tuple[Array, Array]:
        target = whole_rows(read)
        sight = decoder_sight(params, target, encoded, whole_rows(tokens, counted), config)
        x_1xTxE = run_stack(params)(config, embed_text(params, target, config, jnp.float32), sight)
        last_1xE = jax.lax.dynamic_index_in_dim(final_norm(params, x_1xTxE, config), place, axis=1, keepdims=False)
        logits_1xV = logits_of(last_1xE, head(params, config), jnp.float32)
        token = choose(logits_1xV, jax.random.fold_in(key, place)[None], sampling)
        return read.at[:, place + 1].set(token), token

    return jax.lax.scan(step, read_1xT, place + jnp.arange(CHUNK))
