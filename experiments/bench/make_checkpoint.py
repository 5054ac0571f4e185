"""Writes a checkpoint of a real model's shape with as many layers as the disk takes: numbers that nobody learned.

Command:   python experiments/bench/make_checkpoint.py --like llama-3-8b --layers 8 --output build/8b
Run time:  about 10 s a gigabyte.
Expected:  a folder that transformers and lesa_jax take for a Llama or a Qwen2.

Layers drift smoothly with depth, as LESA would have it: each matrix is cos(a) A + sin(a) B with the angle a from 0 in
the first layer to a right angle in the last, A and B random with a spectrum that falls. Everything is bfloat16, in
shards of at most 5 GB, and no more than a few matrices are in memory.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import tyro

from lesa_jax.base.errors import InputError
from lesa_jax.base.folders import check_output, publish
from lesa_jax.checkpoint.format import TensorSpec
from lesa_jax.checkpoint.writer import Layout, TensorWriter, lay_out, write_index

LLAMA_3 = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama-3-8b": LLAMA_3
    | {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_hidden_layers": 32},
    "llama-3-70b": LLAMA_3
    | {"hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_hidden_layers": 80},
    "qwen2.5-32b": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 5120,
        "intermediate_size": 27648,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "num_hidden_layers": 64,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
    },
    "tiny": LLAMA_3
    | {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_attention_heads": 8,
        "num_hidden_layers": 8,
        "vocab_size": 512,
    },
}
TILE = 1 << 20  # random numbers that are drawn, and then come again and again: drawing all would take the time


@dataclass(frozen=True)
class Settings:
    """Which model, and how many of its layers."""

    output: Path
    """Folder to create."""
    like: Literal["llama-3-8b", "llama-3-70b", "qwen2.5-32b", "tiny"] = "llama-3-8b"
    layers: int | None = None
    """By default all."""
    seed: int = 0


def main(settings: Settings) -> None:
    config = MODELS[settings.like] | {"torch_dtype": "bfloat16", "tie_word_embeddings": False}
    config |= {"num_hidden_layers": settings.layers or config["num_hidden_layers"]}
    specs = tensors(config)
    layout = lay_out(specs, 5_000_000_000)
    check_output(settings.output, Path("/dev/null"), False, layout.nbytes)
    with publish(settings.output) as folder:
        (folder / "config.json").write_text(json.dumps(config, indent=2))
        write_weights(folder, layout, specs, config["num_hidden_layers"], settings.seed)
        write_index(folder, layout)
    print(f"{settings.output}: {layout.nbytes / 1e9:.1f} GB")


def tensors(config: dict[str, Any]) -> dict[str, TensorSpec]:
    """All tensors, those of a layer together, the embeddings first."""
    width, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    key_width = width // config["num_attention_heads"] * config["num_key_value_heads"]
    layer = {
        "self_attn.q_proj.weight": (width, width),
        "self_attn.k_proj.weight": (key_width, width),
        "self_attn.v_proj.weight": (key_width, width),
        "self_attn.o_proj.weight": (width, width),
        "mlp.gate_proj.weight": (inner, width),
        "mlp.up_proj.weight": (inner, width),
        "mlp.down_proj.weight": (width, inner),
        "input_layernorm.weight": (width,),
        "post_attention_layernorm.weight": (width,),
    }
    if config["model_type"] == "qwen2":
        layer |= {f"self_attn.{name}_proj.bias": (layer[f"self_attn.{name}_proj.weight"][0],) for name in "qkv"}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    for number in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    shapes |= {"model.norm.weight": (width,), "lm_head.weight": (vocabulary, width)}
    return {name: TensorSpec(shape, "BF16") for name, shape in shapes.items()}


def write_weights(folder: Path, layout: Layout, specs: dict[str, TensorSpec], layers: int, seed: int) -> None:
    writer = TensorWriter(folder, layout)
    for name, spec in specs.items():
        if len(spec.shape) == 1:
            values = np.full(spec.shape, 0 if name.endswith("bias") else 1, np.float32)
        else:
            _, _, rest = name.partition("model.layers.")
            number, _, kind = rest.partition(".")
            angle = 0.5 * math.pi * int(number) / max(1, layers - 1) if rest else 0.0
            values = matrix(spec.shape, kind or name, seed, angle)
        writer.write(name, values.astype(ml_dtypes.bfloat16))
    writer.close()


def matrix(shape: tuple[int, ...], kind: str, seed: int, angle: float) -> np.ndarray:
    """cos(angle) A + sin(angle) B, of the size of an initialised layer; A and B belong to the kind.

    Columns fall as 1 / (1 + 4 j / n): singular values do then, too, over a factor of five.
    """
    rows, columns = shape
    falling = 1 / (1 + 4 * np.arange(columns, dtype=np.float32) / columns)
    falling *= 0.02 / np.sqrt(np.mean(falling**2))
    total = np.zeros(shape, np.float32)
    for number, factor in enumerate((math.cos(angle), math.sin(angle))):
        rng = np.random.default_rng([seed, number, *kind.encode()])
        tile = rng.standard_normal(TILE, np.float32)
        for row in range(rows):  # a piece of the tile from anywhere, so that no two rows are alike
            start = rng.integers(0, TILE)
            total[row] += factor * np.take(tile, np.arange(start, start + columns), mode="wrap")
    return total * falling


if __name__ == "__main__":
    try:
        main(tyro.cli(Settings, description=__doc__))
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
