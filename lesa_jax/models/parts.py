"""The parts of a model by what they do. A family's `Names` say what they are called, and nobody else."""

from typing import Any

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import ModelConfig


def part(tree: Tree, name: str | None) -> Any:
    """What lies under a dotted name, that of a part which the model has."""
    assert name is not None
    for key in name.split("."):
        tree = tree[key]
    return tree


def layers_of(params: Tree, config: ModelConfig) -> Tree:
    """The stacked layers: arrays [layers, ...] under the names that they have inside a layer."""
    return part(params, config.names.layers)


def with_layers(params: Tree, layers: Tree, config: ModelConfig) -> Tree:
    """The model with these layers instead of its own."""
    return _replace(params, config.names.layers.split("."), layers)


def _replace(tree: Tree, keys: list[str], value: Any) -> Tree:
    first, *rest = keys
    return {**tree, first: _replace(tree[first], rest, value) if rest else value}


def layer_tensor(config: ModelConfig, layer: int, name: str) -> str:
    """The checkpoint's name of a tensor that is called `name` inside its layer."""
    return f"{config.names.layers}.{layer}.{name}"


def embedding_tensor(config: ModelConfig) -> str:
    """The name of what turns tokens into the residual stream, [vocab, hidden]."""
    return f"{config.names.embedding}.weight"


def input_tensors(config: ModelConfig) -> frozenset[str]:
    """The names of all that lies below the layers: what turns tokens, and their positions, into the stream."""
    positions = () if config.names.positions is None else (f"{config.names.positions}.weight",)
    return frozenset((embedding_tensor(config), *positions))


def head_tensor(config: ModelConfig) -> str:
    """The name of the head, [vocab, hidden]. A tied model needs none, though some checkpoints have it all the same."""
    return f"{config.names.head}.weight"


def output_tensor(config: ModelConfig) -> str:
    """The name of what turns hidden states into logits: the head, or the embedding when the two are tied."""
    return embedding_tensor(config) if config.tied else head_tensor(config)
