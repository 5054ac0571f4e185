"""What is refused before a forward pass: a config that it does not compute exactly, tensors that are not its own."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.models.load import checked_params
from lesa_jax.models.parts import layers_of
from tests.support.small import small_model


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "bloom"}, "bloom"),
        ({"hidden_act": "mish"}, "mish"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "factor"),
        ({"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0]}}, "short_factor"),
        ({"rope_scaling": {"type": "proportional", "factor": 2.0}}, "proportional"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "per layer type"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"model_type": "phi", "partial_rotary_factor": 0.4}, "partial_rotary_factor"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"model_type": "qwen2", "num_key_value_heads": 2, "layer_types": ["full_attention"]}, "layer_types"),
        (
            {"model_type": "qwen2", "num_key_value_heads": 2, "layer_types": ["sliding_attention"] * 4},
            "use_sliding_window",
        ),
        ({"model_type": "qwen2", "num_key_value_heads": 2, "layer_types": ["chunked_attention"] * 4}, "chunked"),
    ],
)
def test_what_cannot_be_computed_exactly_is_refused(changes: dict[str, Any], named: str):
    with pytest.raises(InputError, match=named) as caught:
        small_model(**changes)
    assert "\n" not in str(caught.value)


def test_a_missing_an_unknown_and_a_misshapen_tensor_are_named():
    params, config = small_model()
    for change, named in (
        (lambda attn: attn.pop("k_proj"), r"model.layers.\*.self_attn.k_proj.weight"),
        (lambda attn: attn.update(q_norm={"weight": jnp.ones((4, 8))}), r"model.layers.\*.self_attn.q_norm.weight"),
        (lambda attn: attn.update(v_proj={"weight": jnp.ones((4, 8, 16))}), r"model.layers.\*.self_attn.v_proj.weight"),
    ):
        broken = jax.tree.map(lambda leaf: leaf, params)
        change(layers_of(broken, config)["self_attn"])
        with pytest.raises(InputError, match=named):
            checked_params(broken, config)


def test_a_stored_head_that_contradicts_tying_is_refused():
    params, config = small_model()
    same = params | {"lm_head": dict(params["model"]["embed_tokens"])}
    assert "lm_head" not in checked_params(same, config)
    with pytest.raises(InputError, match="tie_word_embeddings"):
        checked_params(params | {"lm_head": {"weight": jnp.zeros((32, 16))}}, config)


def test_a_constant_that_old_checkpoints_store_is_left_out():
    params, config = small_model()
    old = jax.tree.map(lambda leaf: leaf, params)
    layers_of(old, config)["self_attn"]["rotary_emb"] = {"inv_freq": jnp.ones((4, 4))}
    assert jax.tree.structure(checked_params(old, config)) == jax.tree.structure(params)
