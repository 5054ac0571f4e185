"""A decoder that reads what an encoder has made of another text: T5 and BART, as pure functions.

Both stacks are described by a `ModelConfig`, the encoder's being `config.encoder`, and run layer after layer in
`lax.scan`, as a decoder's alone (`lesa_jax.models.decoder`). The table of distances lies in the first layer of a stack
and is looked up once. `hidden_states` is told how layers are run, so that training can scan frozen and new ones apart.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.decoder import embed, feed_forward, final_norm, head, normed
from lesa_jax.models.layers import linear
from lesa_jax.models.losses import logits_of
from lesa_jax.models.parts import distance_tensor, layers_of, part
from lesa_jax.models.shapes import layer_tensors
from lesa_jax.models.views import View


@flax.struct.dataclass
class Text:
    """Rows of tokens, of a source or of what the decoder reads of its own.

    `documents` numbers the texts of a row (0: padding), alike in a source and in its target; `positions` restart in
    each, and their `rows` are the batch, or 1 where all rows count alike. JAX also puts in shapes.
    """

    tokens: Int[Any, "*accumulate batch tokens"]
    documents: Int[Any, "*accumulate batch tokens"]
    positions: Int[Any, "*accumulate rows tokens"]


@flax.struct.dataclass
class Sight:
    """What every layer of one stack sees beside the residual stream.

    Attributes:
      own: which tokens of its own text each token attends to.
      distances: what is added to those scores; None: nothing.
      source: the encoder's output; None in an encoder.
      other: which tokens of it each token attends to.
    """

    own: Bool[Array, "batch 1 tokens tokens"]
    distances: Float[Array, "1 heads tokens tokens"] | None = None
    source: Float[Array, "batch source hidden"] | None = None
    other: Bool[Array, "batch 1 tokens source"] | None = None


# Runs the layers of one stack: (its description, the stream, what its layers see) -> the stream.
Run = Callable[[ModelConfig, Float[Array, "batch tokens hidden"], Sight], Float[Array, "batch tokens hidden"]]


def whole_rows(tokens_BxT: Int[Array, "batch tokens"], counted_BxT: Bool[Array, "batch tokens"] | None = None) -> Text:
    """One text a row; those tokens that are not `counted` are padding."""
    documents = jnp.ones_like(tokens_BxT) if counted_BxT is None else counted_BxT.astype(jnp.int32)
    return Text(tokens_BxT, documents, jnp.arange(tokens_BxT.shape[1])[None])


def shifted_right(targets_BxT: Int[Array, "batch tokens"], config: ModelConfig) -> Int[Array, "batch tokens"]:
    """What the decoder reads when it is to write these targets, one a row."""
    first_Bx1 = jnp.full_like(targets_BxT[:, :1], config.start_token)
    return jnp.concatenate([first_Bx1, targets_BxT[:, :-1]], axis=1)


def distance_bucket(distance: Int[np.ndarray, "*shape"], buckets: int, longest: int) -> Int[np.ndarray, "*shape"]:
    """The row of a table for distances of at least 0: half of the rows are exact, the others wider and wider (T5)."""
    exact = buckets // 2
    # In float32, step by step, as transformers has it: some distances lie at the very edge of a bucket.
    far = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    far = far / np.float32(np.log(longest / exact)) * np.float32(buckets - exact)
    return np.where(distance < exact, distance, np.minimum(exact + far.astype(np.int32), buckets - 1))


def distance_rows(tokens: int, config: ModelConfig) -> Int[np.ndarray, "tokens tokens"]:
    """The row of the table for each pair of a token and one that it attends to.

    An encoder has half of the rows for each direction. A decoder sees no later token: their distance counts as 0.
    """
    ahead = np.arange(tokens)[None, :] - np.arange(tokens)[:, None]
    if config.encoder is not None:
        return distance_bucket(np.maximum(-ahead, 0), config.distance_buckets, config.longest_distance)
    half = config.distance_buckets // 2
    return distance_bucket(np.abs(ahead), half, config.longest_distance) + half * (ahead > 0)


def added_scores(params: Tree, tokens: int, config: ModelConfig) -> Float[Array, "1 heads tokens tokens"] | None:
    """What distances add to the scores of a stack's layers; None in a model that has no such table."""
    if config.names.distances is None:
        return None
    table_NxH = part(params, distance_tensor(config))
    return jnp.transpose(table_NxH[distance_rows(tokens, config)], (2, 0, 1))[None].astype(jnp.float32)


def same_text(
    queries_BxT: Int[Array, "batch tokens"], keys_BxS: Int[Array, "batch source"]
) -> Bool[Array, "batch 1 tokens source"]:
    return (queries_BxT[:, :, None] == keys_BxS[:, None, :])[:, None]


def attention(
    layer: Tree,
    names: tuple[str | None, str | None, str | None, str | None],
    x_BxTxE: Float[Array, "batch tokens hidden"],
    read_BxSxE: Float[Array, "batch source hidden"],
    seen: Bool[Array, "batch 1 tokens source"],
    added: Float[Array, "1 heads tokens source"] | None,
    config: ModelConfig,
) -> Float[Array, "batch tokens hidden"]:
    """Attention of x to what is read, by the projections `names`: of queries, keys, values and the output.

    The scores are float32. Padding, which sees nothing, gets the mean of all values, and nobody reads it.
    """
    query, key, value, output = names
    q, k, v = (
        linear(part(layer, name), x).reshape(*x.shape[:2], -1, config.head_dim)
        for name, x in ((query, x_BxTxE), (key, read_BxSxE), (value, read_BxSxE))
    )
    mixed = jax.nn.dot_product_attention(q, k, v, bias=added, mask=seen, scale=config.attention_scale)
    return linear(part(layer, output), mixed.reshape(*x_BxTxE.shape[:2], -1))


def block(
    layer: Tree, x_BxTxE: Float[Array, "batch tokens hidden"], sight: Sight, seen: View, config: ModelConfig
) -> Float[Array, "batch tokens hidden"]:
    """One layer of a stack; a decoder's has a third branch, attention to the source. `layer` has no layer axis.

    `seen` is what a decoder alone has: these models have neither windows nor rotations.
    """
    names = config.names
    own = (names.query, names.key, names.value, names.attention_output)
    cross = (names.cross_query, names.cross_key, names.cross_value, names.cross_output)
    source, other = sight.source, sight.other

    def branch(norm: str | None, x: Array, write: Callable[[Array], Array]) -> Array:
        if config.post_norm:
            return normed(layer, norm, x + write(x), config)
        return x + write(normed(layer, norm, x, config))

    x = branch(
        names.attention_norm,
        x_BxTxE,
        lambda read: attention(layer, own, read, read, sight.own, sight.distances, config),
    )
    if source is not None and other is not None:
        x = branch(names.cross_norm, x, lambda read: attention(layer, cross, read, source, other, None, config))
    return branch(names.feed_forward_norm, x, lambda read: feed_forward(layer, read, config))


def embed_text(params: Tree, text: Text, config: ModelConfig, dtype: DTypeLike) -> Float[Array, "batch tokens hidden"]:
    """The residual stream below a stack's first layer."""
    return normed(
        params, config.names.embedding_norm, embed(params, text.tokens, text.positions, config, dtype), config
    )


def encode(
    params: Tree, source: Text, config: ModelConfig, run: Run, dtype: DTypeLike
) -> Float[Array, "batch source hidden"]:
    """What the encoder, which `config` describes, makes of the source."""
    sight = encoder_sight(params, source, config)
    return final_norm(params, run(config, embed_text(params, source, config, dtype), sight), config)


def encoder_sight(params: Tree, source: Text, config: ModelConfig) -> Sight:
    """What the encoder's layers see."""
    tokens = source.tokens.shape[1]
    return Sight(same_text(source.documents, source.documents), added_scores(params, tokens, config))


def decoder_sight(
    params: Tree, target: Text, encoded: Float[Array, "batch source hidden"], source: Text, config: ModelConfig
) -> Sight:
    """What the decoder's layers see."""
    tokens = target.tokens.shape[1]
    earlier = jnp.tril(jnp.ones((tokens, tokens), bool))[None, None]
    return Sight(
        same_text(target.documents, target.documents) & earlier,
        added_scores(params, tokens, config),
        encoded,
        same_text(target.documents, source.documents),
    )


def hidden_states(
    params: Tree, source: Text, target: Text, config: ModelConfig, run: Run, dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch tokens hidden"]:
    """Hidden states of the decoder after its final norm, in `dtype`; `target` is what it reads (`shifted_right`)."""
    assert config.encoder is not None
    encoded = encode(params, source, config.encoder, run, dtype)
    sight = decoder_sight(params, target, encoded, source, config)
    return final_norm(params, run(config, embed_text(params, target, config, dtype), sight), config)


def run_stack(params: Tree) -> Run:
    """All layers of a stack in one scan; `params` has them stacked, as `models.load` does."""

    def run(config: ModelConfig, x_BxTxE: Array, sight: Sight) -> Array:
        layers = layers_of(params, config)
        # Beside them lies the table of distances, under the first layer's number.
        stacked = unflatten_dict({name: part(layers, name) for name in layer_tensors(config, 0)}, sep=".")

        def step(carry: Array, layer: Tree) -> tuple[Array, None]:
            return block(layer, carry, sight, View(), config), None

        return jax.lax.scan(step, x_BxTxE, stacked)[0]

    return run


def forward(
    params: Tree, source: Text, target: Text, config: ModelConfig, dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch tokens hidden"]:
    """`hidden_states` of a loaded model."""
    return hidden_states(params, source, target, config, run_stack(params), dtype)


def logits(
    params: Tree, source: Text, target: Text, config: ModelConfig, dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch tokens vocab"]:
    """Of the token after each that the decoder reads. Memory is tokens x vocab, which a loss does without."""
    return logits_of(forward(params, source, target, config, dtype), head(params, config))
