"""The table of tensors is what transformers writes."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from lesa_jax.checkpoint.reader import open_checkpoint, read
from lesa_jax.models.config import read_config
from lesa_jax.models.load import load_model
from lesa_jax.models.parts import layer_tensor, output_tensor
from lesa_jax.models.runs import layer_runs, run_of
from lesa_jax.models.shapes import check_tensors, layer_names, layer_tensors, model_tensors
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
        assert (tensor.role == "bias") == (name.endswith("bias") and tensor.role != "norm")
        assert (tensor.fresh is None) == (tensor.role in ("matrix", "table"))


@pytest.mark.parametrize(
    ("name", "runs"), [("qwen2", [6]), ("mixtral", [6]), ("qwen3_moe", [1, 5]), ("openelm", [1, 1, 4])]
)
def test_runs_hold_the_tensors_of_the_table(name, runs):
    params, config = load_model(tiny(name))
    checkpoint = open_checkpoint(tiny(name))
    assert [len(run) for run in layer_runs(config)] == runs
    for run in layer_runs(config):
        leaves = flatten_dict(run_of(params, run, config), sep=".")
        table = {name.replace("*.", ""): (name, tensor) for name, tensor in layer_tensors(config, run[0]).items()}
        assert leaves.keys() == table.keys()
        for path, (called, tensor) in table.items():
            assert leaves[path].shape == (len(run), *tensor.array_shape)
            stored = [read(checkpoint, own) for layer in run for own in layer_names(config, layer, called, tensor)]
            assert np.array_equal(leaves[path].reshape(-1, *tensor.shape), stored)
    assert layer_tensor(config, 3, "up.weight") == f"{config.names.layers}.3.up.weight"
