"""Low-rank adapters (LoRA, arXiv 2106.09685): matrices stay as they are, and to each is added up @ down, of small rank.

The rival that users know best: `--train lora:RANK` trains adapters of all linear layers, those of attention and of the
feed-forward network, and the export has them added up. A fresh `up` is zero, so that training starts where the model
is; `down` has a deviation of one over the root of its inputs. Their product has no further factor (alpha is the rank).
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import Checkpoint, read
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.parts import LORA_DOWN, LORA_UP, is_adapter
from lesa_jax.models.shapes import Tensor, layer_tensors
from lesa_jax.training.parameters import Fill

PREFIX = "lora:"


def rank_of(train: str) -> int | None:
    """The rank that `--train lora:RANK` asks for; None of any other `--train`.

    Raises:
      InputError: it is no positive number.
    """
    if not train.startswith(PREFIX):
        return None
    rank = train.removeprefix(PREFIX)
    if not rank.isdecimal() or int(rank) == 0 or len(rank) > 5:
        raise InputError(f"--train {train}: the rank must be a whole number from 1 to 99999, as in lora:16")
    return int(rank)


def with_adapters(config: ModelConfig, train: str) -> ModelConfig:
    """The model with the adapters that `--train` asks for, or as it is.

    Raises:
      InputError: a rank that is none, or a model whose layers have matrices that are no linear layers.
    """
    rank = rank_of(train)
    if rank is None:
        return config
    if config.experts is not None or config.encoder is not None:
        kind = "a mixture of experts" if config.experts is not None else "an encoder-decoder"
        raise InputError(f"--train {train}: {config.model_type} is {kind}, which has no adapters here; use --train all")
    return replace(config, lora_rank=rank)


def equal_rank(config: ModelConfig, new_layers: int) -> int:
    """The rank at which a model's adapters have about as many numbers as so many new layers of its kind."""
    matrices = [
        tensor.shape
        for layer in range(config.num_layers)
        for tensor in layer_tensors(config, layer).values()
        if tensor.role == "matrix"
    ]
    sides = sum(sum(shape) for shape in matrices)
    return max(1, round(new_layers * sum(a * b for a, b in matrices) / (config.num_layers * sides)))


def beside(checkpoint: Fill, fresh: Fill) -> Fill:
    """Adapters are fresh, all else is the checkpoint's."""

    def fill(name: str, tensor: Tensor, index: tuple[slice, ...]) -> np.ndarray:
        return (fresh if is_adapter(name) else checkpoint)(name, tensor, index)

    return fill


def added_up(
    adapters: Iterable[tuple[str, np.ndarray]], source: Checkpoint, config: ModelConfig
) -> Iterator[tuple[str, np.ndarray]]:
    """The matrices with their adapters, float32; both halves of an adapter come before the next linear layer's."""
    waiting: dict[str, np.ndarray] = {}
    for name, array in adapters:
        if name.endswith(LORA_DOWN):
            waiting[name.removesuffix(LORA_DOWN)] = array
            continue
        layer = name.removesuffix(LORA_UP)
        product = array @ waiting.pop(layer)
        weight = read(source, f"{layer}weight").astype(np.float32)
        yield f"{layer}weight", weight + (product.T if config.transposed else product)
