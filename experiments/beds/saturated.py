"""Saturated small models: a Llama of 12 thin layers trained on more than 100 tokens a parameter, and deeper siblings.

Command:   python experiments/beds/saturated.py --data books.txt --text books-val.txt --output bed [--depths 12 18 24]
Run time:  88 minutes on one CPU core for 12 layers, 34M tokens and a vocabulary of 512, in proportion to the depth for
           the siblings; a few minutes each on a GPU. A run that is stopped goes on when the command is given again.
Expected:  BED/tokenizer, BED/12/final, BED/18/final, BED/24/final and a line on each: the siblings, trained from
           nothing on the same tokens, say what depth is worth at most where growing it starts from 12 layers.

With 0.34M parameters and 50M tokens the base has had 145 tokens a parameter: it learns little more at this size, so
what growth adds is not what more training would have.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lesa_jax.base.files import write_json
from lesa_jax.training.run import train
from lesa_jax.training.settings import (
    BatchSettings,
    HeldOutSettings,
    KeepSettings,
    OptimizerSettings,
    TrainSettings,
)

END = "<|end|>"
SAMPLE = 8_000_000  # characters that the tokenizer is learned from


@dataclass(frozen=True)
class Settings:
    """What is trained on what."""

    data: Path
    text: Path
    output: Path = Path("bed")
    depths: tuple[int, ...] = (12, 18, 24)
    width: int = 48
    vocabulary: int = 1024
    tokens: str = "50M"
    learning_rate: float = 4e-3


def main(settings: Settings) -> None:
    make_tokenizer(settings)
    for depth in settings.depths:
        result = train(train_settings(settings, depth))
        first, last = result.losses["eval_loss"]
        print(f"{depth} layers, {result.trained:,} parameters: held-out loss {first:.4f} -> {last:.4f}", flush=True)


def make_tokenizer(settings: Settings) -> None:
    """A byte-level BPE of the text's beginning, once."""
    folder = settings.output / "tokenizer"
    if folder.exists():
        return
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    with settings.data.open(encoding="utf-8") as file:
        tokenizer.train_from_iterator([file.read(SAMPLE)], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, bos_token=END).save_pretrained(folder)


def train_settings(settings: Settings, depth: int) -> TrainSettings:
    """A model from nothing; every depth sees the same batches."""
    folder = settings.output / "configs" / str(depth)
    folder.mkdir(parents=True, exist_ok=True)
    for file in (settings.output / "tokenizer").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    heads = settings.width // 16
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": settings.width,
        "intermediate_size": settings.width * 8 // 3,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": settings.vocabulary,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "dtype": "float32",
    }
    if not (folder / "config.json").exists() or json.loads((folder / "config.json").read_text()) != config:
        write_json(folder / "config.json", config)
    return TrainSettings(
        init="random",
        config=folder / "config.json",
        train="all",
        data=str(settings.data),
        output=settings.output / str(depth),
        tokens=settings.tokens,
        batch=BatchSettings(batch_size=64, sequence_length=256),
        optimizer=OptimizerSettings(learning_rate=settings.learning_rate, schedule="wsd"),
        held_out=HeldOutSettings(eval_text=settings.text, eval_every=250),
        keeping=KeepSettings(save_every=250, keep=1, token_cache=settings.output / "tokens"),
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
