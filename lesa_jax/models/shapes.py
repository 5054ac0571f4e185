"""The tensors that a configuration asks for, in one table, and whether a checkpoint holds exactly those."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import TensorSpec
from lesa_jax.checkpoint.names import Stack, parse, stack_names
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.families.roles import is_buffer
from lesa_jax.models.config import ModelConfig
from lesa_jax.models.parts import embedding_tensor, head_tensor, layer_tensor

Role = Literal["matrix", "norm", "bias"]


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model.

    Attributes:
      shape: a matrix is [out, in].
      axes: what each dimension is about, by which devices share it (`parallel.mesh.AXIS_RULES`): "vocab", "heads",
        "kv_heads", "ffn", or "embed", the residual stream. None for a vector along the stream, too small to share.
      role: in a fresh model a matrix is random, a norm one, a bias zero.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    role: Role


def model_tensors(config: ModelConfig) -> dict[str, Tensor]:
    """All tensors that the forward pass uses, by their names in the checkpoint."""
    embedding = Tensor((config.vocab_size, config.hidden_size), ("vocab", "embed"), "matrix")
    layers = {
        layer_tensor(config, layer, name): tensor
        for name, tensor in layer_tensors(config).items()
        for layer in range(config.num_layers)
    }
    return {
        embedding_tensor(config): embedding,
        f"{config.names.final_norm}.weight": _norm(config),
        **layers,
        **({} if config.tied else {head_tensor(config): embedding}),
    }


def layer_tensors(config: ModelConfig) -> dict[str, Tensor]:
    """The tensors of each layer, by their names inside the layer."""
    names = config.names
    sizes = {
        "embed": config.hidden_size,
        "heads": config.num_heads * config.head_dim,
        "kv_heads": config.num_kv_heads * config.head_dim,
        "ffn": config.intermediate_size,
    }
    linears = {
        names.query: ("heads", "embed", config.qkv_bias),
        names.key: ("kv_heads", "embed", config.qkv_bias),
        names.value: ("kv_heads", "embed", config.qkv_bias),
        names.attention_output: ("embed", "heads", config.o_bias),
        names.gate: ("ffn", "embed", config.mlp_bias),
        names.up: ("ffn", "embed", config.mlp_bias),
        names.down: ("embed", "ffn", config.mlp_bias),
    }
    tensors = {f"{name}.weight": _norm(config) for name in (names.attention_norm, names.feed_forward_norm)}
    for name, (out, fan_in, bias) in linears.items():
        tensors[f"{name}.weight"] = Tensor((sizes[out], sizes[fan_in]), (out, fan_in), "matrix")
        if bias:
            tensors[f"{name}.bias"] = Tensor((sizes[out],), (None if out == "embed" else out,), "bias")
    return tensors


def _norm(config: ModelConfig) -> Tensor:
    return Tensor((config.hidden_size,), (None,), "norm")


def model_stacks(config: ModelConfig) -> list[Stack]:
    """The table as a checkpoint's tree stacks it; the dtypes are left open."""
    tensors = model_tensors(config)
    order = list(dict.fromkeys(parse(name)[0] for name in tensors))
    stacks = stack_names({name: TensorSpec(tensor.shape, "") for name, tensor in tensors.items()})
    return sorted(stacks, key=lambda stack: order.index(stack.template))


def check_shapes(shapes: Mapping[str, tuple[int, ...]], config: ModelConfig) -> None:
    """Refuses tensors that are not exactly those that the forward pass uses.

    A tensor that the forward pass would leave out (a norm of another family, an adapter) must not go unnoticed.

    Args:
      shapes: of stacked arrays, by dotted tree path (a tensor's name without the layer's number).
      config: of the model.

    Raises:
      InputError: the first tensor that is missing, of another shape, or unknown to the forward pass.
    """
    ignored = {head_tensor(config)} if config.tied else set()
    unknown = {name for name in shapes if name not in ignored and not is_buffer(name)}
    for stack in model_stacks(config):
        name, shape = ".".join(stack.path), stack.sizes + stack.spec.shape
        if name not in shapes:
            raise InputError(
                f"tensor {stack.template} is missing or its layers differ in shape; "
                f"a {config.model_type} model with this config.json needs it as {list(shape)}"
            )
        if shapes[name] != shape:
            raise InputError(
                f"tensor {stack.template} is {list(shapes[name])} with its layers stacked; "
                f"config.json asks for {list(shape)}"
            )
        unknown.remove(name)
    if unknown:
        layers = config.names.layers
        template = min(unknown).replace(f"{layers}.", f"{layers}.*.", 1)
        raise InputError(
            f"tensor {template} has no place in a {config.model_type} forward pass; "
            "correct model_type or the bias entries in config.json"
        )


def check_tensors(checkpoint: Checkpoint, config: ModelConfig) -> None:
    """Refuses a checkpoint that does not hold exactly what the forward pass of `config` needs; reads no weights."""
    check_shapes({".".join(stack.path): stack.sizes + stack.spec.shape for stack in checkpoint.stacks}, config)
