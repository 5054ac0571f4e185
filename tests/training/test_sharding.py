"""Which axes of the mesh share each tensor, written out."""

from dataclasses import replace

import pytest
from jax.sharding import PartitionSpec as P

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.config import read_config
from lesa_jax.models.shapes import model_tensors
from lesa_jax.training.parameters import make_leaves
from lesa_jax.training.sharding import check_mesh, leaf_spec
from tests.support.tiny import tiny
from tests.support.trees import MESH

OUTSIDE = {"model.embed_tokens.weight": P("tensor", "fsdp"), "model.norm.weight": P()}
HEAD = {"lm_head.weight": P("tensor", "fsdp")}
LAYER = {
    "input_layernorm.weight": P(),
    "post_attention_layernorm.weight": P(),
    "self_attn.q_proj.weight": P(None, "tensor", "fsdp"),
    "self_attn.k_proj.weight": P(None, "tensor", "fsdp"),
    "self_attn.v_proj.weight": P(None, "tensor", "fsdp"),
    "self_attn.o_proj.weight": P(None, "fsdp", "tensor"),
    "mlp.gate_proj.weight": P(None, "tensor", "fsdp"),
    "mlp.up_proj.weight": P(None, "tensor", "fsdp"),
    "mlp.down_proj.weight": P(None, "fsdp", "tensor"),
}
QKV_BIAS = {f"self_attn.{name}_proj.bias": P(None, "tensor") for name in "qkv"}
OTHER_BIASES = {
    "self_attn.o_proj.bias": P(),
    "mlp.gate_proj.bias": P(None, "tensor"),
    "mlp.up_proj.bias": P(None, "tensor"),
    "mlp.down_proj.bias": P(),
}


def specs(config: ModelConfig, sizes: dict[str, int]) -> dict[str, P]:
    """By the name of the first layer's tensor, without its number."""
    _, leaves = make_leaves(config, frozenset(model_tensors(config)))
    return {leaf.names[0].removeprefix("model.layers.0."): leaf_spec(leaf, sizes) for leaf in leaves}


def config_of(family: str, **changes: object) -> ModelConfig:
    return read_config(open_checkpoint(tiny(family)).config | changes)


@pytest.mark.parametrize("sizes", [MESH, {"data": 2, "fsdp": 2, "expert": 1, "tensor": 2}])
@pytest.mark.parametrize(
    ("family", "changes", "more"),
    [
        ("llama", {}, HEAD),
        ("llama_tied", {}, {}),
        ("llama", {"attention_bias": True, "mlp_bias": True}, HEAD | QKV_BIAS | OTHER_BIASES),
        ("mistral", {}, HEAD),
        ("qwen2", {}, HEAD | QKV_BIAS),
    ],
)
def test_axes_of_every_tensor(family, changes, more, sizes):
    assert specs(config_of(family, **changes), sizes) == OUTSIDE | LAYER | more


def test_an_axis_that_does_not_divide_is_left_out():
    config = replace(config_of("llama"), vocab_size=63)
    found = specs(config, {"data": 1, "fsdp": 2, "expert": 1, "tensor": 2})
    odd = {"model.embed_tokens.weight": P(None, "fsdp"), "lm_head.weight": P(None, "fsdp")}
    assert found == OUTSIDE | LAYER | odd


def test_a_mesh_must_divide_heads_and_batch():
    config = read_config(open_checkpoint(tiny("llama")).config)  # 4 heads, 2 of them for keys
    with pytest.raises(InputError, match="tensor=4 does not divide the model's num_key_value_heads 2"):
        check_mesh({"data": 1, "fsdp": 1, "expert": 1, "tensor": 4}, config, 8)
    with pytest.raises(InputError, match="6 sequences, which data x fsdp x expert = 4"):
        check_mesh({"data": 2, "fsdp": 2, "expert": 1, "tensor": 2}, config, 6)
