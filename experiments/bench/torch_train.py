"""Rival of `lesa_jax.train` in `bench_train.py`: the same frozen training with transformers and torch.

Command:   python experiments/bench/torch_train.py --model FOLDER --steps 6
Run time:  seconds. Prints one JSON object: tokens_per_second (median step), seconds of the first step, losses.

Original layers, embedding, final norm and head have requires_grad=False; new layers, named by growth.json, train with
torch.optim.AdamW and a clip of their own norm. Rows are whole documents without padding, so no mask is needed.
"""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
import tyro


@dataclass(frozen=True)
class TorchTrainSettings:
    """What to train, and how much of it."""

    model: Path
    steps: int = 6
    batch_size: int = 8
    sequence_length: int = 256
    learning_rate: float = 1e-4
    dtype: str = "float32"
    train: str = "new"
    """new or all."""


def main(settings: TorchTrainSettings) -> None:
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.float32).train()
    if settings.train == "new":
        new = set(json.loads((settings.model / "growth.json").read_text())["new_layers"])
        model.requires_grad_(False)
        for layer in new:
            model.model.layers[layer].requires_grad_(True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, settings.learning_rate, (0.9, 0.95), weight_decay=0.1)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=settings.dtype == "bfloat16")
    rng = np.random.default_rng(0)
    seconds, losses = [], []
    for _ in range(settings.steps):
        rows = rng.integers(0, model.config.vocab_size, (settings.batch_size, settings.sequence_length + 1))
        started = time.perf_counter()
        tokens = torch.from_numpy(rows)
        with autocast:
            logits = model(tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - started)
    tokens = settings.batch_size * settings.sequence_length
    rate = tokens / statistics.median(seconds[1:])
    print(json.dumps({"tokens_per_second": rate, "first_step": seconds[0], "losses": losses}))


if __name__ == "__main__":
    main(tyro.cli(TorchTrainSettings, description=__doc__))
