"""The tree that a configuration asks for, and whether a checkpoint holds exactly that."""

from collections.abc import Mapping

from lesa_jax.base.errors import InputError
from lesa_jax.models.config import ModelConfig


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Dotted tree path (a tensor's name without the layer's number) -> stacked shape."""
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size
    linears = {
        "self_attn.q_proj": (queries, hidden, config.qkv_bias),
        "self_attn.k_proj": (keys, hidden, config.qkv_bias),
        "self_attn.v_proj": (keys, hidden, config.qkv_bias),
        "self_attn.o_proj": (hidden, queries, config.o_bias),
        "mlp.gate_proj": (inner, hidden, config.mlp_bias),
        "mlp.up_proj": (inner, hidden, config.mlp_bias),
        "mlp.down_proj": (hidden, inner, config.mlp_bias),
    }
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    for name, (rows, columns, bias) in linears.items():
        layer[f"{name}.weight"] = (rows, columns)
        if bias:
            layer[f"{name}.bias"] = (rows,)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
        **{f"model.layers.{name}": (config.num_layers, *shape) for name, shape in layer.items()},
    }
    if not config.tied:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def check_shapes(shapes: Mapping[str, tuple[int, ...]], config: ModelConfig) -> None:
    """Raises InputError for the first tensor that is missing, of another shape, or unknown to the forward pass.

    A tensor that the forward pass would leave out (a norm of another family, an adapter) must not go unnoticed.
    `shapes` maps dotted tree paths to stacked shapes.
    """
    expected = parameter_shapes(config)
    for name, shape in expected.items():
        if name not in shapes:
            raise InputError(
                f"tensor {_template(name)} is missing or its layers differ in shape; "
                f"a {config.model_type} model with this config.json needs it as {list(shape)}"
            )
        if shapes[name] != shape:
            raise InputError(
                f"tensor {_template(name)} is {list(shapes[name])} with its layers stacked; "
                f"config.json asks for {list(shape)}"
            )
    unknown = sorted(shapes.keys() - expected.keys())
    if unknown:
        raise InputError(
            f"tensor {_template(unknown[0])} has no place in a {config.model_type} forward pass; "
            "correct model_type or the bias entries in config.json"
        )


def _template(name: str) -> str:
    return name.replace("model.layers.", "model.layers.*.", 1)
