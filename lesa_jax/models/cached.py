"""A decoder that goes on from what it has read: the keys and values of every layer are kept ("KV cache").

Texts of a batch begin at the first place of the cache, and place p is position p. Shorter ones are filled up behind
their end, where no token of theirs looks, and what is written next takes those places over.
"""

from typing import TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.attention import causal_attention
from lesa_jax.models.blocked_attention import Window
from lesa_jax.models.decoder import (
    Context,
    attend_by,
    embed,
    feed,
    final_norm,
    head,
    make_context,
    turned,
    turned_queries,
)
from lesa_jax.models.losses import logits_of
from lesa_jax.models.runs import layer_runs, run_of
from lesa_jax.models.views import Arrays, view, views
from lesa_jax.parallel.mesh import by_rows

Stream: TypeAlias = tuple[Array, Array, Array]  # the residual stream, and a run's keys and values


@flax.struct.dataclass
class Cache:
    """Keys, rotated, and values of each run of layers (`models.runs`): [layers, batch, places, kv_heads, head_dim]."""

    keys: tuple[Array, ...]
    values: tuple[Array, ...]

    @property
    def places(self) -> int:
        """How many tokens a text can have."""
        return self.keys[0].shape[2]


def read_texts(
    params: Tree,
    tokens_BxT: Int[Array, "batch tokens"],
    lengths_B: Int[Array, " batch"],
    reaches_B: Int[Array, " batch"],
    config: ModelConfig,
    places: int,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Float[Array, "batch vocab"], Cache]:
    """Logits of the token after each text, and a cache with room for `places` tokens in all.

    `lengths_B`, at least 1, are the tokens that are texts' own; what stands behind them is not seen. `reaches_B` are
    the lengths that texts may grow to. Where rotations depend on the length they are those of such a text, from the
    first token on: what was read would have to be read again whenever they change.
    """
    positions_BxT = jnp.broadcast_to(jnp.arange(tokens_BxT.shape[1]), tokens_BxT.shape)
    context = make_context(positions_BxT, config, lengths_R=reaches_B)
    x_BxTxE = by_rows(embed(params, tokens_BxT, positions_BxT, config, dtype))
    keys, values = [], []
    for run in layer_runs(config):
        x_BxTxE, kept = read_layers(run_of(params, run, config), x_BxTxE, context, config.of_layers(run))
        room = (0, 0), (0, 0), (0, places - tokens_BxT.shape[1]), (0, 0), (0, 0)
        for found, x in zip((keys, values), kept, strict=True):
            found.append(jnp.pad(x, room))
    last_Bx1xE = jnp.take_along_axis(x_BxTxE, (lengths_B - 1)[:, None, None], axis=1)
    return next_logits(params, last_Bx1xE, config), Cache(tuple(keys), tuple(values))


def read_layers(
    layers: Tree, x_BxTxE: Float[Array, "batch tokens hidden"], context: Context, config: ModelConfig
) -> tuple[Float[Array, "batch tokens hidden"], tuple[Array, Array]]:
    """`decoder.run_layers`, and what is to be kept of keys and values, [layers, batch, tokens, kv_heads, head_dim]."""
    shared, arrays = views(config, range(config.num_layers))

    def step(x: Array, scanned: tuple[Tree, Arrays]) -> tuple[Array, tuple[Array, Array]]:
        layer, own = scanned
        seen = view(shared, own)

        def look(q_BxTxHxD: Array, k_BxTxKxD: Array, v_BxTxKxD: Array) -> tuple[Array, tuple[Array, Array]]:
            q_BxTxHxD = turned_queries(q_BxTxHxD, context, seen, config)
            k_BxTxKxD = turned(k_BxTxKxD, context, seen, config)
            mixed = causal_attention(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, seen.window, None, config.attention_cap)
            return mixed, (k_BxTxKxD, v_BxTxKxD)

        x, read, kept = attend_by(look, layer, x, seen, config)
        return feed(layer, x, read, seen, config)[0], kept

    return jax.lax.scan(step, x_BxTxE, (layers, arrays))


def read_next(
    params: Tree,
    tokens_B: Int[Array, " batch"],
    positions_B: Int[Array, " batch"],
    reaches_B: Int[Array, " batch"],
    cache: Cache,
    config: ModelConfig,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Float[Array, "batch vocab"], Cache]:
    """Logits of the token after one more token of each text, at these positions, and the cache with it."""
    context = make_context(positions_B[:, None], config, lengths_R=reaches_B)
    x_Bx1xE = by_rows(embed(params, tokens_B[:, None], positions_B[:, None], config, dtype))
    keys, values = list(cache.keys), list(cache.values)
    for number, run in enumerate(layer_runs(config)):
        stream = x_Bx1xE, keys[number], values[number]
        layers, own = run_of(params, run, config), config.of_layers(run)
        x_Bx1xE, keys[number], values[number] = next_layers(layers, stream, positions_B, context, own)
    return next_logits(params, x_Bx1xE, config), Cache(tuple(keys), tuple(values))


def next_layers(
    layers: Tree, stream: Stream, positions_B: Int[Array, " batch"], context: Context, config: ModelConfig
) -> Stream:
    """One more token's stream behind a run of layers, and the run's keys and values with its own.

    Those are carried through the scan, not scanned, so that XLA writes the token's into the array that there is.
    """
    shared, arrays = views(config, range(config.num_layers))
    rows = jnp.arange(len(positions_B))

    def step(carry: Stream, scanned: tuple[Tree, Arrays, Array]) -> tuple[Stream, None]:
        x, keys, values = carry
        layer, own, number = scanned
        seen = view(shared, own)

        def look(q_Bx1xHxD: Array, k_Bx1xKxD: Array, v_Bx1xKxD: Array) -> tuple[Array, tuple[Array, Array]]:
            q_Bx1xHxD = turned_queries(q_Bx1xHxD, context, seen, config)
            k_Bx1xKxD = turned(k_Bx1xKxD, context, seen, config)
            all_keys = keys.at[number, rows, positions_B].set(k_Bx1xKxD[:, 0])
            all_values = values.at[number, rows, positions_B].set(v_Bx1xKxD[:, 0])
            k_BxSxKxD, v_BxSxKxD, window = all_keys[number], all_values[number], seen.window
            mixed = attention_to(q_Bx1xHxD, k_BxSxKxD, v_BxSxKxD, positions_B, window, config.attention_cap)
            return mixed, (all_keys, all_values)

        x, read, kept = attend_by(look, layer, x, seen, config)
        return (feed(layer, x, read, seen, config)[0], *kept), None

    return jax.lax.scan(step, stream, (layers, arrays, jnp.arange(config.num_layers)))[0]


def attention_to(
    q_Bx1xHxD: Float[Array, "batch 1 heads head_dim"],
    k_BxSxKxD: Float[Array, "batch places kv_heads head_dim"],
    v_BxSxKxD: Float[Array, "batch places kv_heads head_dim"],
    positions_B: Int[Array, " batch"],
    window: Window,
    cap: float | None,
) -> Float[Array, "batch 1 heads head_dim"]:
    """One token's average of the values up to its place; otherwise as `models.attention.causal_attention`."""
    batch, _, heads, width = q_Bx1xHxD.shape
    q_BxKxGxD = q_Bx1xHxD.reshape(batch, k_BxSxKxD.shape[2], -1, width)
    scores = jnp.einsum("bkgd,bskd->bkgs", q_BxKxGxD, k_BxSxKxD, preferred_element_type=jnp.float32) * width**-0.5
    scores = scores if cap is None else cap * jnp.tanh(scores / cap)
    age_BxS = positions_B[:, None] - jnp.arange(k_BxSxKxD.shape[1])[None]
    seen_BxS = age_BxS >= 0 if window is None else (age_BxS >= 0) & (age_BxS < window)
    shares = jax.nn.softmax(jnp.where(seen_BxS[:, None, None], scores, -jnp.inf), axis=-1)
    mixed = jnp.einsum("bkgs,bskd->bkgd", shares.astype(v_BxSxKxD.dtype), v_BxSxKxD)
    return mixed.reshape(batch, 1, heads, width)


def next_logits(
    params: Tree, x_Bx1xE: Float[Array, "batch 1 hidden"], config: ModelConfig
) -> Float[Array, "batch vocab"]:
    """Logits, float32, from the residual stream behind the last layer."""
    return logits_of(final_norm(params, x_Bx1xE, config), head(params, config), jnp.float32)[:, 0]
