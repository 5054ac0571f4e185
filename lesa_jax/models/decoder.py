"""The forward pass, as pure functions over a tree that has the checkpoint's own names and layouts.

A Llama's `params["model"]["layers"]["self_attn"]["q_proj"]["weight"]` is [layers, out, in]; all parts are found by the
names that the family gives them. Layers run in `lax.scan`, so compile time does not grow with depth; `run_layers` takes
any run of layers, so that training can scan frozen and new layers separately. Weights may be stored in bfloat16: each
layer is cast to the dtype of the activations inside the scan, so a float32 forward pass of a bfloat16 model never holds
the model in float32.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.names import Tree
from lesa_jax.models.attention import causal_attention, layer_windows
from lesa_jax.models.config import ModelConfig
from lesa_jax.models.layers import feed_forward, linear, rms_norm
from lesa_jax.models.parts import embedding_tensor, head_tensor, layers_of, part
from lesa_jax.models.rope import rotate, rotation


@flax.struct.dataclass
class Context:
    """What every layer sees beside the residual stream: the rotation of each position, and which document it is of.

    `rows` is the batch, or 1 where all rows count positions alike. Without `documents` a row is one document.
    """

    cos: Float[Array, "rows tokens half"]
    sin: Float[Array, "rows tokens half"]
    documents: Int[Array, "batch tokens"] | None = None


def make_context(
    positions_RxT: Int[Array, "rows tokens"],
    config: ModelConfig,
    documents_BxT: Int[Array, "batch tokens"] | None = None,
) -> Context:
    """The context of tokens at these positions."""
    return Context(*rotation(positions_RxT, config.rope, config.head_dim), documents_BxT)


def attention(
    layer: Tree,
    x_BxTxE: Float[Array, "batch tokens hidden"],
    context: Context,
    window: Int[Array, ""] | int | None,
    config: ModelConfig,
) -> Float[Array, "batch tokens hidden"]:
    """Grouped-query attention over the normed residual stream. `layer` has no layer axis."""
    batch, tokens, _ = x_BxTxE.shape
    names = config.names
    q_BxTxHxD, k_BxTxKxD, v_BxTxKxD = (
        linear(part(layer, name), x_BxTxE).reshape(batch, tokens, heads, config.head_dim)
        for name, heads in (
            (names.query, config.num_heads),
            (names.key, config.num_kv_heads),
            (names.value, config.num_kv_heads),
        )
    )
    q_BxTxHxD, k_BxTxKxD = (rotate(x, context.cos, context.sin) for x in (q_BxTxHxD, k_BxTxKxD))
    mixed_BxTxHxD = causal_attention(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, window, context.documents)
    return linear(part(layer, names.attention_output), mixed_BxTxHxD.reshape(batch, tokens, -1))


def block(
    layer: Tree,
    x_BxTxE: Float[Array, "batch tokens hidden"],
    context: Context,
    window: Int[Array, ""] | int | None,
    config: ModelConfig,
) -> Float[Array, "batch tokens hidden"]:
    """One layer: the residual stream in, the residual stream out. `layer` has no layer axis."""
    names = config.names
    normed_BxTxE = rms_norm(part(layer, names.attention_norm), x_BxTxE, config.norm_eps)
    x_BxTxE = x_BxTxE + attention(layer, normed_BxTxE, context, window, config)
    normed_BxTxE = rms_norm(part(layer, names.feed_forward_norm), x_BxTxE, config.norm_eps)
    gate, up, down = (part(layer, name) for name in (names.gate, names.up, names.down))
    return x_BxTxE + feed_forward(gate, up, down, normed_BxTxE)


def run_layers(
    layers: Tree,
    x_BxTxE: Float[Array, "batch tokens hidden"],
    context: Context,
    windows: tuple[int | None, ...],
    config: ModelConfig,
) -> Float[Array, "batch tokens hidden"]:
    """A run of stacked layers in one scan. `windows` has one entry for each of them."""
    shared, per_layer = layer_windows(windows)

    def step(carry: Array, scanned: tuple[Tree, Array | None]) -> tuple[Array, None]:
        layer, window = scanned
        return block(layer, carry, context, shared if window is None else window, config), None

    return jax.lax.scan(step, x_BxTxE, (layers, per_layer))[0]


def embed(
    params: Tree, tokens_BxT: Int[Array, "batch tokens"], config: ModelConfig, dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch tokens hidden"]:
    """The embedding rows of `tokens_BxT`; `dtype` becomes the dtype of the whole forward pass."""
    return part(params, embedding_tensor(config))[tokens_BxT].astype(dtype)


def final_norm(
    params: Tree, x_BxTxE: Float[Array, "batch tokens hidden"], config: ModelConfig
) -> Float[Array, "batch tokens hidden"]:
    """Hidden states from the residual stream above the last layer."""
    return rms_norm(part(params, config.names.final_norm), x_BxTxE, config.norm_eps)


def head_weight(params: Tree, config: ModelConfig) -> Float[Array, "vocab hidden"]:
    """The output projection: the embedding itself when the two are tied.

    Raises:
      InputError: they are not tied, and there is no head.
    """
    if config.tied:
        return part(params, embedding_tensor(config))
    try:
        return part(params, head_tensor(config))
    except KeyError:
        missing = f"{head_tensor(config)} is missing although tie_word_embeddings is false in config.json"
        raise InputError(missing) from None


def forward(
    params: Tree, tokens_BxT: Int[Array, "batch tokens"], config: ModelConfig, dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch tokens hidden"]:
    """Hidden states after the final norm, in `dtype`; norms, rotations and softmax are float32 in any case."""
    context = make_context(jnp.arange(tokens_BxT.shape[1])[None], config)
    x_BxTxE = embed(params, tokens_BxT, config, dtype)
    x_BxTxE = run_layers(layers_of(params, config), x_BxTxE, context, config.windows, config)
    return final_norm(params, x_BxTxE, config)


def logits(
    params: Tree, tokens_BxT: Int[Array, "batch tokens"], config: ModelConfig, dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch tokens vocab"]:
    """Next-token logits. Memory is tokens x vocab: a loss goes through `lesa_jax.models.losses.token_nll` instead."""
    hidden_BxTxE = forward(params, tokens_BxT, config, dtype)
    return jnp.einsum("bte,ve->btv", hidden_BxTxE, head_weight(params, config).astype(dtype))
