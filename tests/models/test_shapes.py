"""The table of tensors is what transformers writes."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.models.config import read_config
from lesa_jax.models.load import load_model
from lesa_jax.models.parts import layer_tensor, layers_of, output_tensor, with_layers
from lesa_jax.models.shapes import check_tensors, layer_tensors, model_tensors
from lesa_jax.parallel.mesh import AXIS_RULES
from tests.support.tiny import RUNNING, tiny


@pytest.mark.parametrize("name", RUNNING)
def test_names_and_shapes_are_those_of_the_checkpoint(name):
    checkpoint = open_checkpoint(tiny(name))
    config = read_config(checkpoint.config)
    check_tensors(checkpoint, config)
    tensors = model_tensors(config)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: entry.spec.shape for name, entry in checkpoint.entries.items()
    }
    assert output_tensor(config) in tensors
    for name, tensor in tensors.items():
        assert len(tensor.axes) == len(tensor.shape)
        assert {axis for axis in tensor.axes if axis} <= AXIS_RULES.keys()
        assert (tensor.role == "norm") == any(word in name for word in ("norm", ".ln_"))
        assert (tensor.role == "bias") == (name.endswith(".bias") and tensor.role != "norm")
        assert (tensor.fresh is None) == (tensor.role in ("matrix", "table"))


def test_stacked_layers_are_those_of_the_table():
    params, config = load_model(tiny("qwen2"))
    layers = flatten_dict(layers_of(params, config), sep=".")
    assert {name: leaf.shape for name, leaf in layers.items()} == {
        name: (config.num_layers, *tensor.shape) for name, tensor in layer_tensors(config).items()
    }
    assert layer_tensor(config, 3, "mlp.up_proj.weight") == "model.layers.3.mlp.up_proj.weight"


def test_other_layers_leave_the_rest_of_the_model_alone():
    params, config = load_model(tiny("llama"))
    zeroed = with_layers(params, jax.tree.map(np.zeros_like, layers_of(params, config)), config)
    assert not any(leaf.any() for leaf in jax.tree.leaves(layers_of(zeroed, config)))
    assert all(leaf.any() for leaf in jax.tree.leaves(layers_of(params, config)))
    rest = with_layers(zeroed, layers_of(params, config), config)
    assert jax.tree.all(jax.tree.map(np.array_equal, rest, params))
