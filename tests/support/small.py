"""A small model that is made without torch and without a file."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lesa_jax.families.model import ModelConfig
from lesa_jax.models.config import read_config


def small_model(**changes: Any) -> tuple[dict[str, Any], ModelConfig]:
    """A random float32 model of 4 layers, made without torch."""
    hidden, inner, layers, vocab = 16, 24, 4, 32
    config = read_config(
        {
            "model_type": "llama",
            "vocab_size": vocab,
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": 2,
            "max_position_embeddings": 64,
            "tie_word_embeddings": True,
        }
        | changes
    )
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> dict[str, jax.Array]:
        return {"weight": jnp.asarray(rng.standard_normal(shape) * 0.3, jnp.float32)}

    attention = {name: weight(layers, hidden, hidden) for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
    mlp = {
        "gate_proj": weight(layers, inner, hidden),
        "up_proj": weight(layers, inner, hidden),
        "down_proj": weight(layers, hidden, inner),
    }
    norms = {"input_layernorm": weight(layers, hidden), "post_attention_layernorm": weight(layers, hidden)}
    stack = {"self_attn": attention, "mlp": mlp, **norms}
    return {"model": {"embed_tokens": weight(vocab, hidden), "layers": stack, "norm": weight(hidden)}}, config
