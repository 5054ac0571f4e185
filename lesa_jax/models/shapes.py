"""The tensors that a configuration asks for, in one table, and whether a checkpoint holds exactly those."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import TensorSpec
from lesa_jax.checkpoint.names import Stack, parse, stack_names
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.families.model import ModelConfig
from lesa_jax.families.roles import is_buffer
from lesa_jax.models.parts import embedding_tensor, head_tensor, layer_tensor

Role = Literal["matrix", "table", "norm", "bias"]


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model.

    Attributes:
      shape: a matrix is [out, in], or [in, out] in the families that store it so.
      axes: what each dimension is about, by which devices share it (`parallel.mesh.AXIS_RULES`): "vocab", "heads",
        "kv_heads", "ffn", or "embed", the residual stream. None for a vector along the stream, too small to share, and
        for a dimension that cannot be cut up, as that of fused projections.
      role: a matrix takes part in products, a table is looked up.
      fresh: its numbers in a fresh model; None: random ones.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    role: Role
    fresh: float | None = None


def model_tensors(config: ModelConfig) -> dict[str, Tensor]:
    """All tensors that the forward pass uses, by their names in the checkpoint."""
    names, hidden = config.names, config.hidden_size
    embedding = Tensor((config.vocab_size, hidden), ("vocab", "embed"), "matrix")
    tensors = {embedding_tensor(config): embedding}
    if names.positions is not None:
        rows = config.max_position_embeddings + config.position_offset
        tensors[f"{names.positions}.weight"] = Tensor((rows, hidden), (None, "embed"), "table")
    tensors |= _norm(names.final_norm, (hidden,), config)
    for name, tensor in layer_tensors(config).items():
        tensors |= {layer_tensor(config, layer, name): tensor for layer in range(config.num_layers)}
    if not config.tied:
        tensors[head_tensor(config)] = embedding
    if config.head_bias:
        tensors[f"{names.head}.bias"] = Tensor((config.vocab_size,), ("vocab",), "bias", 0.0)
    return tensors


def layer_tensors(config: ModelConfig) -> dict[str, Tensor]:
    """The tensors of each layer, by their names inside the layer."""
    names = config.names
    tensors: dict[str, Tensor] = {}
    for name in (names.attention_norm, names.feed_forward_norm):
        tensors |= _norm(name, (config.hidden_size,), config)
    for name, linear in _linears(config).items():
        tensors |= _linear(name, *linear, config)
    for name, heads in ((names.query_norm, config.num_heads), (names.key_norm, config.num_kv_heads)):
        tensors |= _norm(name, _head_norm(heads, config), config)
    for name in (names.attention_output_norm, names.feed_forward_output_norm):
        tensors |= _norm(name, (config.hidden_size,), config)
    return tensors


def _linears(config: ModelConfig) -> dict[str, tuple[int, str | None, int, str | None, bool]]:
    """The linear layers of a layer: their outputs and what those are about, their inputs and the same, their bias."""
    names, hidden, inner = config.names, config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    linears = {
        names.query: (queries, "heads", hidden, "embed", config.qkv_bias),
        names.key: (keys, "kv_heads", hidden, "embed", config.qkv_bias),
        names.value: (keys, "kv_heads", hidden, "embed", config.qkv_bias),
        names.qkv: (queries + 2 * keys, None, hidden, "embed", config.qkv_bias),
        names.attention_output: (hidden, "embed", queries, "heads", config.output_bias),
        names.gate: (inner, "ffn", hidden, "embed", config.up_bias),
        names.up: (inner, "ffn", hidden, "embed", config.up_bias),
        names.gate_up: (2 * inner, None, hidden, "embed", config.up_bias),
        names.down: (hidden, "embed", inner, "ffn", config.down_bias),
    }
    return {name: linear for name, linear in linears.items() if name is not None}


def _linear(
    name: str, outputs: int, out: str | None, inputs: int, fan_in: str | None, bias: bool, config: ModelConfig
) -> dict[str, Tensor]:
    shape, axes = (outputs, inputs), (out, fan_in)
    if config.transposed:
        shape, axes = shape[::-1], axes[::-1]
    found = {f"{name}.weight": Tensor(shape, axes, "matrix")}
    if bias:
        found[f"{name}.bias"] = Tensor((outputs,), (None if out == "embed" else out,), "bias", 0.0)
    return found


def _norm(name: str | None, shape: tuple[int, ...], config: ModelConfig) -> dict[str, Tensor]:
    """The tensors of a norm, if there is one and it has any."""
    if name is None:
        return {}
    axes = (None,) * len(shape)
    weight = Tensor(shape, axes, "norm", 0.0 if config.norm.shifted else 1.0)
    tensors = {f"{name}.weight": weight} if config.norm.weight else {}
    return tensors | ({f"{name}.bias": Tensor(shape, axes, "norm", 0.0)} if config.norm.bias else {})


def _head_norm(heads: int, config: ModelConfig) -> tuple[int, ...]:
    """The shape of a norm of queries or keys."""
    match config.qk_norm:
        case "all":
            return (heads * config.head_dim,)
        case "heads":
            return heads, config.head_dim
        case _:
            return (config.head_dim,)


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
