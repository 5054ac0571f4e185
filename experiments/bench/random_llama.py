"""A random llama checkpoint of any size, and batches for it, for benchmarks: nothing there depends on the values."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from lesa_jax.training.step import Batch

VOCABULARY = 4096


def matrix_shapes(width: int, inner: int) -> dict[str, tuple[int, int]]:
    """The matrices of a layer, [out, in]."""
    return {
        **{f"self_attn.{name}_proj": (width, width) for name in "qkvo"},
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }


def write_llama(folder: Path, width: int, inner: int, layers: int, heads: int, distinct: int | None = None) -> Path:
    """Writes weights and config.json; beyond `distinct` layers, if given, the weights repeat."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.standard_normal((rows, columns), np.float32) * np.float32(0.02)

    period = layers if distinct is None else distinct
    tensors = {"model.embed_tokens.weight": matrix(VOCABULARY, width), "model.norm.weight": np.ones(width, np.float32)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name, shape in matrix_shapes(width, inner).items():
            earlier = tensors.get(f"model.layers.{layer % period}.{name}.weight")
            tensors[f"{prefix}{name}.weight"] = matrix(*shape) if earlier is None else earlier
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{name}.weight"] = np.ones(width, np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def random_batch(vocabulary: int, sequences: int, tokens: int, seed: int) -> Batch:
    """Sequences of one document each, as one part of a step: [1, sequences, tokens]."""
    rows = np.random.default_rng(seed).integers(0, vocabulary, (1, sequences, tokens + 1), np.int32)
    ones = np.ones((1, sequences, tokens), np.int32)
    positions = np.broadcast_to(np.arange(tokens, dtype=np.int32), ones.shape)
    inputs, targets, documents, places, weights = (
        jnp.asarray(field) for field in (rows[..., :-1], rows[..., 1:], ones, positions, ones.astype(np.float32))
    )
    return Batch(inputs, targets, documents, places, weights)
