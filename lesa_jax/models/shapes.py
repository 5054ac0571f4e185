"""The tensors that a configuration asks for, in one table, and whether a checkpoint holds exactly those."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import TensorSpec
from lesa_jax.checkpoint.names import Stack, parse, stack_names
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.families.model import Experts, Latent, ModelConfig
from lesa_jax.families.roles import is_buffer
from lesa_jax.models.parts import (
    LORA_DOWN,
    LORA_UP,
    distance_tensor,
    embedding_copies,
    embedding_tensor,
    head_tensor,
    layer_tensor,
)

Role = Literal["matrix", "table", "norm", "bias"]


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model.

    Attributes:
      shape: a matrix is [out, in], or [in, out] in the families that store it so.
      axes: what each dimension is about, by which devices share it (`parallel.mesh.AXIS_RULES`): "vocab", "heads",
        "kv_heads", "ffn", "experts", or "embed", the residual stream. None for a vector along the stream, too small to
        share, and for a dimension that cannot be cut up, as that of fused projections.
      role: a matrix takes part in products, a table is looked up.
      fresh: its numbers in a fresh model; None: random ones.
      experts: how many of them a layer has, the expert's number in the place of the name's `*`; None: one.
      deviation: of random numbers in a fresh model; None: what config.json says.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    role: Role
    fresh: float | None = None
    experts: int | None = None
    deviation: float | None = None

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Of what holds a layer's, the experts' number first."""
        return self.shape if self.experts is None else (self.experts, *self.shape)

    @property
    def array_axes(self) -> tuple[str | None, ...]:
        """What each of its dimensions is about."""
        return self.axes if self.experts is None else ("experts", *self.axes)


def model_tensors(config: ModelConfig) -> dict[str, Tensor]:
    """All tensors that the forward pass uses, by their names in the checkpoint."""
    names = config.names
    size = (config.vocab_size, config.hidden_size)
    embedding = Tensor(size, ("vocab", "embed"), "matrix", deviation=1.0 if config.fan_in else None)
    tensors = {embedding_tensor(config): embedding}
    for stack in config.stacks:
        tensors |= outside_layers(stack)
        for layer in range(stack.num_layers):
            for name, tensor in layer_tensors(stack, layer).items():
                tensors |= dict.fromkeys(layer_names(stack, layer, name, tensor), replace(tensor, experts=None))
    if not config.tied:
        tensors[head_tensor(config)] = embedding
    if config.head_bias:
        tensors[f"{names.head}.bias"] = Tensor((config.vocab_size,), ("vocab",), "bias", 0.0)
    if names.logit_bias is not None:
        tensors[names.logit_bias] = Tensor((1, config.vocab_size), (None, "vocab"), "bias", 0.0)
    return tensors


def outside_layers(config: ModelConfig) -> dict[str, Tensor]:
    """What belongs to one stack and to none of its layers alone."""
    names, hidden = config.names, config.hidden_size
    tensors: dict[str, Tensor] = {}
    if names.positions is not None:
        rows = config.max_position_embeddings + config.position_offset
        tensors[f"{names.positions}.weight"] = Tensor((rows, hidden), (None, "embed"), "table")
    if names.distances is not None:
        size, deviation = (config.distance_buckets, config.num_heads), hidden**-0.5 if config.fan_in else None
        tensors[distance_tensor(config)] = Tensor(size, (None, None), "table", deviation=deviation)
    return tensors | _norm(names.embedding_norm, (hidden,), config) | _norm(names.final_norm, (hidden,), config)


def layer_names(config: ModelConfig, layer: int, name: str, tensor: Tensor) -> tuple[str, ...]:
    """The checkpoint's names of the tensors that are called `name` inside their layer: one, or one for each expert."""
    whole = layer_tensor(config, layer, name)
    return (whole,) if tensor.experts is None else tuple(whole.replace("*", str(e)) for e in range(tensor.experts))


def layer_tensors(config: ModelConfig, layer: int) -> dict[str, Tensor]:
    """The tensors of a layer, by their names inside it, with a `*` for the numbers of experts."""
    config, names = config.like(layer), config.names
    tensors: dict[str, Tensor] = {}
    for name in (names.attention_norm, names.cross_norm, names.feed_forward_norm):
        tensors |= _norm(name, (config.hidden_size,), config)
    attention = _attention(config) if config.latent is None else _latent(config, config.latent)
    for name, linear in attention.items():
        tensors |= _linear(name, *linear, config)
    for name, heads in ((names.query_norm, config.num_heads), (names.key_norm, config.num_kv_heads)):
        tensors |= _norm(name, _head_norm(heads, config), config)
    if config.latent is not None:
        latent = config.latent
        for name, rank in ((latent.query_norm, latent.query_rank), (latent.key_value_norm, latent.key_value_rank)):
            tensors |= {} if rank is None else _norm(name, (rank,), config)
    if config.experts is not None and config.is_sparse(layer):
        tensors |= _experts(config, config.experts)
    else:
        for name, linear in _feed_forward(config).items():
            tensors |= _linear(name, *linear, config)
    for name in (names.attention_output_norm, names.feed_forward_output_norm):
        tensors |= _norm(name, (config.hidden_size,), config)
    return tensors


# A linear layer's outputs and what those are about, its inputs and the same, and whether it has a bias.
Linears: TypeAlias = dict[str, tuple[int, str | None, int, str | None, bool]]


def _named(linears: Mapping[str | None, tuple[int, str | None, int, str | None, bool]]) -> Linears:
    """Those that the model has."""
    return {name: linear for name, linear in linears.items() if name is not None}


def _attention(config: ModelConfig) -> Linears:
    names, hidden = config.names, config.hidden_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return _named(
        {
            names.query: (queries, "heads", hidden, "embed", config.qkv_bias),
            names.key: (keys, "kv_heads", hidden, "embed", config.qkv_bias),
            names.value: (keys, "kv_heads", hidden, "embed", config.qkv_bias),
            names.qkv: (queries + 2 * keys, None, hidden, "embed", config.qkv_bias),
            names.attention_output: (hidden, "embed", queries, "heads", config.output_bias),
            names.cross_query: (queries, "heads", hidden, "embed", config.qkv_bias),
            names.cross_key: (keys, "kv_heads", hidden, "embed", config.qkv_bias),
            names.cross_value: (keys, "kv_heads", hidden, "embed", config.qkv_bias),
            names.cross_output: (hidden, "embed", queries, "heads", config.output_bias),
        }
    )


def _latent(config: ModelConfig, latent: Latent) -> Linears:
    """Of latent attention; only what reads the residual stream has biases."""
    hidden, heads, rank = config.hidden_size, config.num_heads, latent.key_value_rank
    queries, narrow = heads * config.head_dim, latent.query_rank
    return _named(
        {
            latent.query_down: (narrow or 0, None, hidden, "embed", config.qkv_bias),
            latent.query: (queries, "heads", narrow or hidden, None if narrow else "embed", False),
            latent.key_value_down: (rank + latent.rotated, None, hidden, "embed", config.qkv_bias),
            latent.key_value: (heads * (latent.plain + latent.value), "heads", rank, None, False),
            config.names.attention_output: (hidden, "embed", heads * latent.value, "heads", config.output_bias),
        }
    )


def _feed_forward(config: ModelConfig) -> Linears:
    names, hidden, inner = config.names, config.hidden_size, config.intermediate_size
    return _named(
        {
            names.gate: (inner, "ffn", hidden, "embed", config.up_bias),
            names.up: (inner, "ffn", hidden, "embed", config.up_bias),
            names.gate_up: (2 * inner, None, hidden, "embed", config.up_bias),
            names.down: (hidden, "embed", inner, "ffn", config.down_bias),
        }
    )


def _experts(config: ModelConfig, experts: Experts) -> dict[str, Tensor]:
    """Of a mixture: routers, and experts that are tensors of their own or all one."""
    names, hidden, number = experts.names, config.hidden_size, experts.number
    first = (experts.width, hidden), ("ffn", "embed")
    parts = {
        names.gate: first,
        names.up: first,
        names.gate_up: ((2 * experts.width, hidden), (None, "embed")),
        names.down: ((hidden, experts.width), ("embed", "ffn")),
    }
    tensors = {f"{names.router}.weight": Tensor((number, hidden), (None, "embed"), "matrix")}
    if names.selection_bias is not None:
        tensors[names.selection_bias] = Tensor((number,), (None,), "bias", 0.0)
    for name, (shape, axes) in parts.items():
        if name is not None:
            own = Tensor(shape, axes, "matrix", experts=number)
            packed = replace(own, shape=own.array_shape, axes=own.array_axes, experts=None)
            tensors[f"{name}.weight"] = own if "*" in name else packed
    if experts.shared_width:
        shared = (experts.shared_width, "ffn", hidden, "embed", False)
        linears = {
            names.shared_gate: shared,
            names.shared_up: shared,
            names.shared_down: (hidden, "embed", experts.shared_width, "ffn", False),
            names.shared_router: (1, None, hidden, "embed", False),
        }
        for name, linear in _named(linears).items():
            tensors |= _linear(name, *linear, config)
    return tensors


def _linear(
    name: str, outputs: int, out: str | None, inputs: int, fan_in: str | None, bias: bool, config: ModelConfig
) -> dict[str, Tensor]:
    shape, axes = (outputs, inputs), (out, fan_in)
    if config.transposed:
        shape, axes = shape[::-1], axes[::-1]
    deviation = inputs**-0.5 if config.fan_in else None
    if deviation is not None and config.attention_scale == 1 and name in (config.names.query, config.names.cross_query):
        deviation *= config.head_dim**-0.5  # the scores are not divided by it (T5)
    found = {f"{name}.weight": Tensor(shape, axes, "matrix", deviation=deviation)}
    if bias:
        found[f"{name}.bias"] = Tensor((outputs,), (None if out == "embed" else out,), "bias", 0.0)
    if config.lora_rank:
        down, up = (config.lora_rank, inputs), (outputs, config.lora_rank)
        found[f"{name}.{LORA_DOWN}"] = Tensor(down, (None, fan_in), "matrix", deviation=inputs**-0.5)
        found[f"{name}.{LORA_UP}"] = Tensor(up, (out, None), "matrix", fresh=0.0)
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
    ignored = embedding_copies(config)
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
        entries = "the bias entries" if config.experts is None else "the entries about experts and biases"
        raise InputError(
            f"tensor {template} has no place in a {config.model_type} forward pass; "
            f"correct model_type or {entries} in config.json"
        )


def check_tensors(checkpoint: Checkpoint, config: ModelConfig) -> None:
    """Refuses a checkpoint that does not hold exactly what the forward pass of `config` needs; reads no weights."""
    check_experts(checkpoint, config)
    check_shapes({".".join(stack.path): stack.sizes + stack.spec.shape for stack in checkpoint.stacks}, config)


def check_experts(checkpoint: Checkpoint, config: ModelConfig) -> None:
    """Refuses a layer of which some experts are there, and some are not."""
    if config.experts is None:
        return
    for layer in range(config.num_layers):
        for name, tensor in layer_tensors(config, layer).items():
            names = layer_names(config, layer, name, tensor)
            missing = [tensor_name for tensor_name in names if tensor_name not in checkpoint.entries]
            if 0 < len(missing) < len(names):
                raise InputError(
                    f"tensor {missing[0]} is missing, though other experts of its layer are there; config.json has "
                    f"{config.experts.number} of them: download the checkpoint again, or correct the number"
                )
