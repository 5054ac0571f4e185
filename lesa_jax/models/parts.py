"""The parts of a model by what they do. A family's `Names` say what they are called, and nobody else."""

from typing import Any

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import ModelConfig

# What an adapter of a linear layer is called beside its weight: [rank, in] and [out, rank], whatever way that lies.
LORA_DOWN, LORA_UP = "lora_down", "lora_up"


def is_adapter(name: str) -> bool:
    """Whether a tensor's name is an adapter's."""
    return name.endswith((f".{LORA_DOWN}", f".{LORA_UP}"))


def part(tree: Tree, name: str | None) -> Any:
    """What lies under a dotted name, that of a part which the model has."""
    assert name is not None
    for key in name.split("."):
        tree = tree[key]
    return tree


def layers_of(params: Tree, config: ModelConfig) -> Tree:
    """The stacked layers of a model whose layers are alike: arrays [layers, ...] under their names inside a layer."""
    return part(params, config.names.layers)


def layer_tensor(config: ModelConfig, layer: int, name: str) -> str:
    """The checkpoint's name of a tensor that is called `name` inside its layer."""
    return f"{config.names.layers}.{layer}.{name}"


def embedding_tensor(config: ModelConfig) -> str:
    """The name of what turns tokens into the residual stream, [vocab, hidden]."""
    return f"{config.names.embedding}.weight"


def input_tensors(config: ModelConfig) -> frozenset[str]:
    """The names of all that lies below the layers: what turns tokens, and their positions, into the stream."""
    names = config.names
    positions = () if names.positions is None else (f"{names.positions}.weight",)
    distances = () if names.distances is None else (distance_tensor(config),)
    norms = () if names.embedding_norm is None else (f"{names.embedding_norm}.{leaf}" for leaf in ("weight", "bias"))
    return frozenset((embedding_tensor(config), *positions, *distances, *norms))


def distance_tensor(config: ModelConfig) -> str:
    """The name of the table of distances, which lies in the first layer and serves all."""
    return layer_tensor(config, 0, f"{config.names.distances}.weight")


def embedding_copies(config: ModelConfig) -> frozenset[str]:
    """The names under which some checkpoints hold the embedding once more, that of a tied head among them."""
    copies = {f"{name}.weight" for name in config.embedding_copies}
    return frozenset(copies | {head_tensor(config)} if config.tied else copies)


def head_tensor(config: ModelConfig) -> str:
    """The name of the head, [vocab, hidden]. A tied model needs none, though some checkpoints have it all the same."""
    return f"{config.names.head}.weight"


def output_tensor(config: ModelConfig) -> str:
    """The name of what turns hidden states into logits: the head, or the embedding when the two are tied."""
    return embedding_tensor(config) if config.tied else head_tensor(config)
