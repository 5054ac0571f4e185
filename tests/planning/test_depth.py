"""What is doubted of a model that grows: unknown types, entries that nobody understands, layers that are not alike."""

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import TensorSpec
from lesa_jax.checkpoint.names import stack_names
from lesa_jax.planning.config import grow_config
from lesa_jax.planning.depth import find_doubts
from lesa_jax.planning.placement import make_plan

PLAN = make_plan(4, "duplicate", gaps=[1])
CONFIG = {"model_type": "nemotron", "num_hidden_layers": 4, "hidden_size": 8, "architectures": ["A"]}


def doubts(config, shapes=None):
    shapes = {f"layers.{i}.w": (8, 8) for i in range(4)} | (shapes or {})
    stacks = stack_names({name: TensorSpec(shape, "F32") for name, shape in shapes.items()})
    return find_doubts(config, PLAN, stacks, "layers.")


def test_a_known_type_whose_layers_are_alike_is_not_doubted():
    assert doubts(CONFIG | {"layer_types": ["a"] * 5, "first_k_dense_replace": 1, "use_foo_layers": True}) == ()


@pytest.mark.parametrize(
    ("entries", "doubt"),
    [
        ({"model_type": "unheard_of"}, "model_type unheard_of is not among those that are known"),
        ({"auto_map": {"AutoModel": "x.X"}}, "code of its own"),
        ({"foo_layer_interval": 2}, "foo_layer_interval"),
        ({"hybrid_pattern": "M-M*"}, "hybrid_pattern"),
        ({"loop_first": 2}, "loop_first"),
        ({"skip_layers": [1, 2]}, "skip_layers"),
        ({"block_kinds": {"1": "a"}}, "block_kinds"),
    ],
)
def test_what_is_not_understood_is_named(entries, doubt):
    [found] = doubts(CONFIG | entries)
    assert doubt in found


def test_unlike_layers_are_doubted_unless_config_json_says_so():
    [found] = doubts(CONFIG, {"layers.3.bias": (8,)})
    assert found == "tensor layers.3.bias is [8], but is missing in layer 0"
    assert doubts(CONFIG | {"mlp_layer_types": ["a", "a", "a", "a", "b"]}, {"layers.3.bias": (8,)}) == ()
    assert doubts(CONFIG | {"mlp_only_layers": [0]}, {"layers.0.w": (4, 8)}) == ()
    assert doubts(CONFIG | {"first_k_dense_replace": 1}, {"layers.0.w": (4, 8)}) == ()


def test_unlike_layers_of_a_tested_family_are_damage():
    with pytest.raises(InputError, match=r"layers\.2\.w is \[7, 8\], but is \[8, 8\] in layer 0"):
        doubts(CONFIG | {"model_type": "phi"}, {"layers.2.w": (7, 8)})


def test_a_grown_config_keeps_what_it_does_not_understand():
    grown = grow_config({"model_type": "x", "num_layers": 4, "foo_layer_interval": 2}, PLAN)
    assert grown == {"model_type": "x", "num_layers": 5, "foo_layer_interval": 2}
