"""The forward pass, as pure functions over a tree that has the checkpoint's own names and layouts.

`params["model"]["layers"]["self_attn"]["q_proj"]["weight"]` is [layers, out, in]. Layers run in `lax.scan`, so compile
time does not grow with depth; `run_layers` takes any run of layers, so that training can scan frozen and new layers
separately. Weights may be stored in bfloat16: each layer is cast to the dtype of the activations inside the scan, so a
float32 forward pass of a bfloat16 model never holds the model in float32.
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
    params: Tree,
    x_BxTxE: Float[Array, "batch tokens hidden"],
    context: Context,
    window: Int[Array, ""] | int | None,
    config: ModelConfig,
) -> Float[Array, "batch tokens hidden"]:
    """Grouped-query attention over the normed residual stream."""
    batch, tokens, _ = x_BxTxE.shape
    q_BxTxHxD, k_BxTxKxD, v_BxTxKxD = (
        linear(params[name], x_BxTxE).reshape(batch, tokens, heads, config.head_dim)
        for name, heads in (
            ("q_proj", config.num_heads),
            ("k_proj", config.num_kv_heads),
            ("v_proj", config.num_kv_heads),
        )
    )
    q_BxTxHxD, k_BxTxKxD = (rotate(x, context.cos, context.sin) for x in (q_BxTxHxD, k_BxTxKxD))
    mixed_BxTxHxD = causal_attention(q_BxTxHxD, k_BxTxKxD, v_BxTxKxD, window, context.documents)
    return linear(params["o_proj"], mixed_BxTxHxD.reshape(batch, tokens, -1))


def block(
    layer_params: Tree,
    x_BxTxE: Float[Array, "batch tokens hidden"],
    context: Context,
    window: Int[Array, ""] | int | None,
    config: ModelConfig,
) -> Float[Array, "batch tokens hidden"]:
    """One layer: the residual stream in, the residual stream out. `layer_params` has no layer axis."""
    normed_BxTxE = rms_norm(layer_params["input_layernorm"], x_BxTxE, config.norm_eps)
    x_BxTxE = x_BxTxE + attention(layer_params["self_attn"], normed_BxTxE, context, window, config)
    normed_BxTxE = rms_norm(layer_params["post_attention_layernorm"], x_BxTxE, config.norm_eps)
    return x_BxTxE + feed_forward(layer_params["mlp"], normed_BxTxE)


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
    params: Tree, tokens_BxT: Int[Array, "batch tokens"], dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch tokens hidden"]:
    """The embedding rows of `tokens_BxT`; `dtype` becomes the dtype of the whole forward pass."""
    return params["model"]["embed_tokens"]["weight"][tokens_BxT].astype(dtype)


def head_weight(params: Tree, config: ModelConfig) -> Float[Array, "vocab hidden"]:
    """The output projection: the embedding itself when the two are tied."""
    if config.tied:
        return params["model"]["embed_tokens"]["weight"]
    if "lm_head" not in params:
        raise InputError("lm_head.weight is missing although tie_word_embeddings is false in config.json")
    return params["lm_head"]["weight"]


def forward(
    params: Tree, tokens_BxT: Int[Array, "batch tokens"], config: ModelConfig, dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch tokens hidden"]:
    """Hidden states after the final norm, in `dtype`; norms, rotations and softmax are float32 in any case."""
    context = make_context(jnp.arange(tokens_BxT.shape[1])[None], config)
    x_BxTxE = embed(params, tokens_BxT, dtype)
    x_BxTxE = run_layers(params["model"]["layers"], x_BxTxE, context, config.windows, config)
    return rms_norm(params["model"]["norm"], x_BxTxE, config.norm_eps)


def logits(
    params: Tree, tokens_BxT: Int[Array, "batch tokens"], config: ModelConfig, dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch tokens vocab"]:
    """Next-token logits. Memory is tokens x vocab: a loss goes through `lesa_jax.losses.token_nll` instead."""
    hidden_BxTxE = forward(params, tokens_BxT, config, dtype)
    return jnp.einsum("bte,ve->btv", hidden_BxTxE, head_weight(params, config).astype(dtype))
