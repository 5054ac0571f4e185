"""The forward pass, as pure functions over a tree that has the checkpoint's own names and layouts.

A Llama's `params["model"]["layers"]["self_attn"]["q_proj"]["weight"]` is [layers, out, in]; all parts are found by the
names that the family gives them. Layers run in `lax.scan`, so compile time does not grow with depth; `run_layers` takes
any run of layers, so that training can scan frozen and new layers separately. Weights may be stored in bfloat16: each
layer is cast to the dtype of the activations inside the scan, so a float32 forward pass of a bfloat16 model never holds
the model in float32.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import Latent, ModelConfig
from lesa_jax.models.attention import causal_attention
from lesa_jax.models.experts import Routing, mixture
from lesa_jax.models.layers import ACTIVATIONS, linear, normalise
from lesa_jax.models.losses import Head, logits_of
from lesa_jax.models.parts import embedding_tensor, head_tensor, part
from lesa_jax.models.rope import rotate, rotation
from lesa_jax.models.runs import layer_runs, run_of
from lesa_jax.models.views import Arrays, View, view, views
from lesa_jax.parallel.mesh import by_rows

Kept = TypeVar("Kept")

LATENT_EPS = 1e-6  # of the norms inside latent attention, whatever config.json says of others


@flax.struct.dataclass
class Context:
    """What every layer sees beside the residual stream: the rotations of each position, and which document it is of.

    `rows` is the batch, or 1 where all rows count positions alike. Without `documents` a row is one document. A model
    without rotations has no `cos` and `sin`.
    """

    cos: Float[Array, "rotations rows tokens half"] | None
    sin: Float[Array, "rotations rows tokens half"] | None
    documents: Int[Array, "batch tokens"] | None = None


def make_context(
    positions_RxT: Int[Array, "rows tokens"],
    config: ModelConfig,
    documents_BxT: Int[Array, "batch tokens"] | None = None,
    lengths_R: Int[Array, " rows"] | None = None,
) -> Context:
    """The context of tokens at these positions, in texts of these lengths: by default up to the furthest position."""
    turning = next((rope for rope in config.ropes if rope is not None), None)
    if turning is None:
        return Context(None, None, documents_BxT)
    still = jnp.ones((*positions_RxT.shape, turning.width // 2)), jnp.zeros((*positions_RxT.shape, turning.width // 2))
    turns = [still if rope is None else rotation(positions_RxT, rope, lengths_R) for rope in config.ropes]
    return Context(jnp.stack([cos for cos, _ in turns]), jnp.stack([sin for _, sin in turns]), documents_BxT)


def queries_keys_values(
    layer: Tree, x_BxTxE: Float[Array, "batch tokens hidden"], config: ModelConfig
) -> tuple[
    Float[Array, "batch tokens heads head_dim"],
    Float[Array, "batch tokens kv_heads head_dim"],
    Float[Array, "batch tokens kv_heads head_dim"],
]:
    """The three projections, normed where the family does that, not yet rotated."""
    if config.latent is not None:
        return latent_queries_keys_values(layer, x_BxTxE, config, config.latent)
    names, width = config.names, config.head_dim
    batch, tokens, _ = x_BxTxE.shape
    if names.qkv is not None:
        groups = config.qkv_groups
        fused = linear(part(layer, names.qkv), x_BxTxE, config.transposed).reshape(batch, tokens, groups, -1, width)
        per_group = config.num_heads // groups, config.num_kv_heads // groups
        parts = jnp.split(fused, [per_group[0], sum(per_group)], axis=3)
        q, k, v = (x.reshape(batch, tokens, -1) for x in parts)
    else:
        q, k, v = (linear(part(layer, name), x_BxTxE) for name in (names.query, names.key, names.value))
    if config.qk_norm == "all":
        q, k = normed(layer, names.query_norm, q, config), normed(layer, names.key_norm, k, config)
    q, k, v = (x.reshape(batch, tokens, -1, width) for x in (q, k, v))
    if config.qkv_clip is not None:
        q, k, v = (jnp.clip(x, -config.qkv_clip, config.qkv_clip) for x in (q, k, v))
    if config.qk_norm in ("head", "heads"):
        q, k = normed(layer, names.query_norm, q, config), normed(layer, names.key_norm, k, config)
    return q, k, v


def latent_queries_keys_values(
    layer: Tree, x_BxTxE: Float[Array, "batch tokens hidden"], config: ModelConfig, latent: Latent
) -> tuple[
    Float[Array, "batch tokens heads head_dim"],
    Float[Array, "batch tokens heads head_dim"],
    Float[Array, "batch tokens heads head_dim"],
]:
    """Of latent attention, the part that is to be rotated first in a head; values filled up to the keys' width."""
    batch, tokens, _ = x_BxTxE.shape
    read = x_BxTxE
    if latent.query_down is not None:
        read = latent_normed(layer, latent.query_norm, linear(part(layer, latent.query_down), x_BxTxE), config)
    q = linear(part(layer, latent.query), read).reshape(batch, tokens, -1, config.head_dim)
    narrow, rotated = jnp.split(linear(part(layer, latent.key_value_down), x_BxTxE), [latent.key_value_rank], axis=-1)
    narrow = latent_normed(layer, latent.key_value_norm, narrow, config)
    plain = linear(part(layer, latent.key_value), narrow).reshape(batch, tokens, config.num_heads, -1)
    plain, v = jnp.split(plain, [latent.plain], axis=-1)
    rotated = jnp.broadcast_to(rotated[:, :, None, :], (*plain.shape[:3], latent.rotated))
    k = jnp.concatenate([rotated, plain], axis=-1)
    q = jnp.roll(q, latent.rotated, axis=-1)
    # Kernels want all three of one width; zeros behind the values come out as zeros.
    return q, k, jnp.pad(v, ((0, 0), (0, 0), (0, 0), (0, config.head_dim - latent.value)))


def latent_normed(layer: Tree, name: str | None, x: Float[Array, "*shape features"], config: ModelConfig) -> Array:
    """x by the norm of a narrow vector, whose epsilon is its own."""
    return normalise(part(layer, name), x, replace(config.norm, eps=LATENT_EPS))


def normed(layer: Tree, name: str | None, x: Float[Array, "*shape features"], config: ModelConfig) -> Array:
    """x by the norm of this name; x itself where the family has none there."""
    if name is None:
        return x
    return normalise(part(layer, name) if config.norm.weight else {}, x, config.norm)


def turned(
    x_BxTxHxD: Float[Array, "batch tokens heads head_dim"], context: Context, seen: View, config: ModelConfig
) -> Float[Array, "batch tokens heads head_dim"]:
    """Queries or keys, rotated by where they stand."""
    if context.cos is None or context.sin is None:
        return x_BxTxHxD
    return rotate(x_BxTxHxD, context.cos[seen.rotation], context.sin[seen.rotation], config.interleaved)


def turned_queries(
    q_BxTxHxD: Float[Array, "batch tokens heads head_dim"], context: Context, seen: View, config: ModelConfig
) -> Float[Array, "batch tokens heads head_dim"]:
    """Queries, rotated, such that scores divided by the root of the width are scaled as in the family."""
    q_BxTxHxD = turned(q_BxTxHxD, context, seen, config)
    return q_BxTxHxD if config.attention_scale is None else q_BxTxHxD * (config.attention_scale * config.head_dim**0.5)


def feed_forward(
    layer: Tree, x_BxTxE: Float[Array, "batch tokens hidden"], config: ModelConfig
) -> Float[Array, "batch tokens hidden"]:
    """down(f(gate(x)) * up(x)), or down(f(up(x))) where there is no gate."""
    names, activation = config.names, ACTIVATIONS[config.activation]
    if names.gate_up is not None:
        gate, up = jnp.split(linear(part(layer, names.gate_up), x_BxTxE, config.transposed), 2, axis=-1)
        inner = activation(gate) * up
    elif names.gate is not None:
        inner = activation(linear(part(layer, names.gate), x_BxTxE)) * linear(part(layer, names.up), x_BxTxE)
    else:
        inner = activation(linear(part(layer, names.up), x_BxTxE, config.transposed))
    return linear(part(layer, names.down), inner, config.transposed)


def block(
    layer: Tree,
    x_BxTxE: Float[Array, "batch tokens hidden"],
    context: Context,
    seen: View,
    config: ModelConfig,
) -> Float[Array, "batch tokens hidden"]:
    """One layer: the residual stream in, the residual stream out. `layer` has no layer axis."""
    return routed_block(layer, x_BxTxE, context, seen, config)[0]


def routed_block(
    layer: Tree,
    x_BxTxE: Float[Array, "batch tokens hidden"],
    context: Context,
    seen: View,
    config: ModelConfig,
) -> tuple[Float[Array, "batch tokens hidden"], Routing | None]:
    """`block`, and what its router decided if it has experts."""
    x_BxTxE, read = attend(layer, x_BxTxE, context, seen, config)
    return feed(layer, x_BxTxE, read, seen, config)


def attend(
    layer: Tree,
    x_BxTxE: Float[Array, "batch tokens hidden"],
    context: Context,
    seen: View,
    config: ModelConfig,
) -> tuple[Float[Array, "batch tokens hidden"], Float[Array, "batch tokens hidden"]]:
    """The stream with what attention adds to it, and what the layer's feed-forward network or its experts read."""

    def look(q_BxTxHxD: Array, k_BxTxKxD: Array, v_BxTxKxD: Array) -> tuple[Array, None]:
        return look_back(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, context, seen, config), None

    return attend_by(look, layer, x_BxTxE, seen, config)[:2]


def look_back(
    q_BxTxHxD: Float[Array, "batch tokens heads head_dim"],
    k_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    v_BxTxKxD: Float[Array, "batch tokens kv_heads head_dim"],
    context: Context,
    seen: View,
    config: ModelConfig,
) -> Float[Array, "batch tokens heads head_dim"]:
    """Each token's average of values, by queries and keys that are not rotated."""
    q_BxTxHxD = turned_queries(q_BxTxHxD, context, seen, config)
    k_BxTxKxD = turned(k_BxTxKxD, context, seen, config)
    return causal_attention(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, seen.window, context.documents, config.attention_cap)


def attend_by(
    look: Callable[[Array, Array, Array], tuple[Array, Kept]],
    layer: Tree,
    x_BxTxE: Float[Array, "batch tokens hidden"],
    seen: View,
    config: ModelConfig,
) -> tuple[Float[Array, "batch tokens hidden"], Float[Array, "batch tokens hidden"], Kept]:
    """`attend`, where `look` makes the heads' averages of values from queries, keys and values that are not rotated,
    and what is kept of them."""
    names = config.names
    read = counted(normed(layer, names.attention_norm, x_BxTxE, config), seen)
    mixed, kept = look(*queries_keys_values(layer, read, config))
    if config.latent is not None:
        mixed = mixed[..., : config.latent.value]
    mixed = mixed.reshape(*x_BxTxE.shape[:2], -1)
    attended = linear(part(layer, names.attention_output), mixed, config.transposed)
    attended = scaled(normed(layer, names.attention_output_norm, attended, config), config.residual_scale)
    if not config.parallel:
        x_BxTxE = x_BxTxE + attended
        return x_BxTxE, counted(normed(layer, names.feed_forward_norm, x_BxTxE, config), seen), kept
    if names.feed_forward_norm is not None:
        read = counted(normed(layer, names.feed_forward_norm, x_BxTxE, config), seen)
    return x_BxTxE + attended, read, kept


def feed(
    layer: Tree,
    x_BxTxE: Float[Array, "batch tokens hidden"],
    read: Float[Array, "batch tokens hidden"],
    seen: View,
    config: ModelConfig,
) -> tuple[Float[Array, "batch tokens hidden"], Routing | None]:
    """The stream with what the feed-forward network or the experts add to it, and what a router decided."""
    fed, routing = mixture(layer, read, config) if seen.sparse else (feed_forward(layer, read, config), None)
    fed = scaled(normed(layer, config.names.feed_forward_output_norm, fed, config), config.residual_scale)
    return x_BxTxE + fed, routing


def counted(read: Float[Array, "batch tokens hidden"], seen: View) -> Float[Array, "batch tokens hidden"]:
    """What a layer reads, times its own factor (LayerNorm Scaling, arXiv 2502.05795)."""
    return scaled(read, seen.scale) if isinstance(seen.scale, int | float) else read * seen.scale.astype(read.dtype)


def scaled(x: Array, factor: float) -> Array:
    """Times a factor, of which 1 costs nothing."""
    return x if factor == 1 else x * factor


def run_layers(
    layers: Tree,
    x_BxTxE: Float[Array, "batch tokens hidden"],
    context: Context,
    config: ModelConfig,
) -> Float[Array, "batch tokens hidden"]:
    """A model's layers, all of one size and stacked, in one scan; some of a model's with `config.of_layers`."""
    shared, arrays = views(config, range(config.num_layers))

    def step(carry: Array, scanned: tuple[Tree, Arrays]) -> tuple[Array, None]:
        layer, own = scanned
        return block(layer, carry, context, view(shared, own), config), None

    return jax.lax.scan(step, x_BxTxE, (layers, arrays))[0]


def embed(
    params: Tree,
    tokens_BxT: Int[Array, "batch tokens"],
    positions_RxT: Int[Array, "rows tokens"],
    config: ModelConfig,
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "batch tokens hidden"]:
    """The embeddings of tokens, and of their positions where a model has those; `dtype` becomes that of the whole
    forward pass. `rows` is the batch, or 1.

    Raises:
      InputError: rows longer than a learned table of positions: JAX would take its last row for all beyond.
    """
    x_BxTxE = part(params, embedding_tensor(config))[tokens_BxT].astype(dtype)
    x_BxTxE = scaled(x_BxTxE, config.embedding_scale)
    if config.names.positions is None:
        return x_BxTxE
    if tokens_BxT.shape[1] > config.max_position_embeddings:
        raise InputError(
            f"{tokens_BxT.shape[1]} tokens in a row; the model has {config.max_position_embeddings} positions"
        )
    table = part(params, f"{config.names.positions}.weight")
    return x_BxTxE + table[positions_RxT + config.position_offset].astype(dtype)


def final_norm(
    params: Tree, x_BxTxE: Float[Array, "batch tokens hidden"], config: ModelConfig
) -> Float[Array, "batch tokens hidden"]:
    """Hidden states from the residual stream above the last layer, scaled as the logits are to be."""
    return scaled(normed(params, config.names.final_norm, x_BxTxE, config), config.logit_scale)


def head(params: Tree, config: ModelConfig) -> Head:
    """What makes logits of hidden states; its weight is the embedding itself when the two are tied.

    Raises:
      InputError: they are not tied, and there is no head.
    """
    bias = part(params, f"{config.names.head}.bias") if config.head_bias else None
    if config.names.logit_bias is not None:
        bias = part(params, config.names.logit_bias)[0]
    if config.tied:
        return Head(part(params, embedding_tensor(config)), bias, config.logit_cap)
    try:
        return Head(part(params, head_tensor(config)), bias, config.logit_cap)
    except KeyError:
        missing = f"{head_tensor(config)} is missing although tie_word_embeddings is false in config.json"
        raise InputError(missing) from None


def forward(
    params: Tree, tokens_BxT: Int[Array, "batch tokens"], config: ModelConfig, dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch tokens hidden"]:
    """Hidden states after the final norm, in `dtype`; norms, rotations and softmax are float32 in any case."""
    positions_1xT = jnp.arange(tokens_BxT.shape[1])[None]
    x_BxTxE = by_rows(embed(params, tokens_BxT, positions_1xT, config, dtype))
    context = make_context(positions_1xT, config)
    for run in layer_runs(config):
        x_BxTxE = run_layers(run_of(params, run, config), x_BxTxE, context, config.of_layers(run))
    return final_norm(params, x_BxTxE, config)


def logits(
    params: Tree, tokens_BxT: Int[Array, "batch tokens"], config: ModelConfig, dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch tokens vocab"]:
    """Next-token logits. Memory is tokens x vocab: a loss goes through `lesa_jax.models.losses.token_nll` instead."""
    return logits_of(forward(params, tokens_BxT, config, dtype), head(params, config))
