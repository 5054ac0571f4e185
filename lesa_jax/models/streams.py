"""A checkpoint run on a few tokens straight from its files, a layer at a time, so that memory follows one layer."""

import functools
from collections.abc import Collection, Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, Float, Int

from lesa_jax.checkpoint.names import Tree
from lesa_jax.checkpoint.reader import Checkpoint, read
from lesa_jax.families.model import ModelConfig
from lesa_jax.models import encoder_decoder
from lesa_jax.models.decoder import Context, attend, block, embed, final_norm, make_context, routed_block
from lesa_jax.models.encoder_decoder import Sight, Text, decoder_sight, embed_text, encoder_sight, whole_rows
from lesa_jax.models.experts import Routing
from lesa_jax.models.losses import Head
from lesa_jax.models.parts import embedding_tensor, output_tensor
from lesa_jax.models.shapes import layer_names, layer_tensors, outside_layers
from lesa_jax.models.views import View, view_of


def embedded(
    checkpoint: Checkpoint, config: ModelConfig, tokens: Int[np.ndarray, "batch tokens"]
) -> tuple[Float[Array, "batch tokens hidden"], Context]:
    """The residual stream before the first layer, and what all layers see."""
    positions = jnp.arange(tokens.shape[1])[None]
    outside, rows = read_outside(checkpoint, config, tokens)
    return embed(outside, rows, positions, config), make_context(positions, config)


def hidden_states(
    checkpoint: Checkpoint,
    config: ModelConfig,
    tokens: Int[np.ndarray, "batch tokens"],
    whole: Collection[int] = (),
) -> Iterator[Float[Array, "batch tokens hidden"]]:
    """The residual stream before the first layer, and after each; in the `whole` layers all experts are asked."""
    x, context = embedded(checkpoint, config, tokens)
    yield x
    for layer in range(config.num_layers):
        program = alike(config, layer)
        if layer in whole:
            program = replace(program, experts=config.experts and config.experts.all_chosen())
        x = run_layer(read_layer(checkpoint, config, layer), x, context, view_of(config, layer), program)
        yield x


def alike(config: ModelConfig, layer: int) -> ModelConfig:
    """What models of any depth have in common that have a layer of this one's sizes: one program runs it in all."""
    return replace(config.like(layer).of_layers([]), encoder=config.encoder and config.encoder.of_layers([]))


def encoder_states(
    checkpoint: Checkpoint, config: ModelConfig, tokens: Int[np.ndarray, "batch tokens"]
) -> Iterator[Float[Array, "batch tokens hidden"]]:
    """The same of an encoder-decoder's encoder, which reads these tokens."""
    assert config.encoder is not None
    outside, rows = read_outside(checkpoint, config.encoder, tokens)
    text = whole_rows(rows)
    yield from stack_states(checkpoint, config.encoder, outside, text, encoder_sight(outside, text, config.encoder))


def decoder_states(
    checkpoint: Checkpoint,
    config: ModelConfig,
    tokens: Int[np.ndarray, "batch tokens"],
    stream: Float[Array, "batch tokens hidden"],
) -> Iterator[Float[Array, "batch tokens hidden"]]:
    """The same of its decoder, which reads these tokens and what the encoder made of them, not yet normed."""
    assert config.encoder is not None
    source = final_norm(read_outside(checkpoint, config.encoder, tokens)[0], stream, config.encoder)
    outside, rows = read_outside(checkpoint, config, tokens)
    text = whole_rows(rows)
    yield from stack_states(checkpoint, config, outside, text, decoder_sight(outside, text, source, text, config))


def stack_states(
    checkpoint: Checkpoint, config: ModelConfig, outside: Tree, text: Text, sight: Sight
) -> Iterator[Float[Array, "batch tokens hidden"]]:
    x = embed_text(outside, text, config, jnp.float32)
    yield x
    for layer in range(config.num_layers):
        x = run_stack_layer(read_layer(checkpoint, config, layer), x, sight, alike(config, layer))
        yield x


def read_outside(
    checkpoint: Checkpoint, config: ModelConfig, tokens: Int[np.ndarray, "batch tokens"]
) -> tuple[Tree, Int[Array, "batch tokens"]]:
    """What a stack has outside its layers, of the embedding the rows of these tokens alone; and the tokens, by row."""
    used, rows = np.unique(tokens, return_inverse=True)
    table = np.concatenate([read(checkpoint, embedding_tensor(config), int(token), 1) for token in used])
    outside = {name: wide(read(checkpoint, name)) for name in outside_layers(config)}
    tree = unflatten_dict({embedding_tensor(config): wide(table), **outside}, sep=".")
    return tree, jnp.asarray(rows.reshape(tokens.shape))


def read_head(checkpoint: Checkpoint, config: ModelConfig) -> tuple[Tree, Head]:
    """What makes logits of the residual stream behind the last layer: what `final_norm` needs, and the head."""
    outside = {name: wide(read(checkpoint, name)) for name in outside_layers(config)}
    weight = wide(read(checkpoint, output_tensor(config)))
    bias = wide(read(checkpoint, f"{config.names.head}.bias")) if config.head_bias else None
    if config.names.logit_bias is not None:
        bias = wide(read(checkpoint, config.names.logit_bias))[0]
    return unflatten_dict(outside, sep="."), Head(weight, bias, config.logit_cap)


def read_layer(checkpoint: Checkpoint, config: ModelConfig, layer: int) -> Tree:
    """The tensors of one layer, float32, all experts' of one name as one array."""
    found = {}
    for name, tensor in layer_tensors(config, layer).items():
        arrays = [wide(read(checkpoint, own)) for own in layer_names(config, layer, name, tensor)]
        found[name.replace("*.", "")] = arrays[0] if tensor.experts is None else jnp.stack(arrays)
    return unflatten_dict(found, sep=".")


def wide(array: np.ndarray) -> Array:
    return jnp.asarray(array.astype(np.float32))


@functools.partial(jax.jit, static_argnames=("seen", "config"))
def run_layer(
    layer: Tree, x: Float[Array, "batch tokens hidden"], context: Context, seen: View, config: ModelConfig
) -> Float[Array, "batch tokens hidden"]:
    return block(layer, x, context, seen, config)


@functools.partial(jax.jit, static_argnames=("seen", "config"))
def routed_layer(
    layer: Tree, x: Float[Array, "batch tokens hidden"], context: Context, seen: View, config: ModelConfig
) -> tuple[Float[Array, "batch tokens hidden"], Float[Array, "batch tokens hidden"], Routing | None]:
    """The stream behind a layer, what its feed-forward network or its router read, and what the router decided."""
    read = attend(layer, x, context, seen, config)[1]
    after, routing = routed_block(layer, x, context, seen, config)
    return after, read, routing


def routings(
    checkpoint: Checkpoint, config: ModelConfig, tokens: Int[np.ndarray, "batch tokens"]
) -> Iterator[tuple[int, Routing]]:
    """What each layer's router decides about these tokens; layers without experts are left out."""
    x, context = embedded(checkpoint, config, tokens)
    for layer in range(config.num_layers):
        x, _, routing = routed_layer(
            read_layer(checkpoint, config, layer), x, context, view_of(config, layer), alike(config, layer)
        )
        if routing is not None:
            yield layer, routing


@functools.partial(jax.jit, static_argnames="config")
def run_stack_layer(
    layer: Tree, x: Float[Array, "batch tokens hidden"], sight: Sight, config: ModelConfig
) -> Float[Array, "batch tokens hidden"]:
    return encoder_decoder.block(layer, x, sight, View(), config)
