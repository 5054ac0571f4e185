"""How many layers there are, and where: by config.json and by the tensors' names."""

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import TensorSpec
from lesa_jax.checkpoint.names import stack_names
from lesa_jax.families.fields import count_layers, find_layers


def stacks(layers):
    return tuple(stack_names({f"model.layers.{i}.w": TensorSpec((2, 2), "F32") for i in range(layers)}))


@pytest.mark.parametrize("value", [True, "16", 1e3, 0, -1, 10**9, [6], {"a": 1}, float("nan")], ids=str)
def test_a_count_that_is_no_count_is_named(value):
    for config in ({"num_hidden_layers": value}, {"text_config": {"num_hidden_layers": value}}):
        with pytest.raises(InputError, match=r"config\.json: num_hidden_layers is ") as caught:
            count_layers(config)
        assert "\n" not in str(caught.value)


def test_layers_that_predict_further_ahead_are_not_taken_for_layers():
    config = {"num_hidden_layers": 4, "num_nextn_predict_layers": 1}
    assert find_layers(config, stacks(4)) == "model.layers."
    with pytest.raises(
        InputError, match=r"layers\.4\.\* and above predict tokens further ahead.*leave num_hidden_layers"
    ):
        find_layers(config, stacks(5))


def test_more_tensors_than_layers_get_no_advice_that_would_grow_them():
    with pytest.raises(InputError, match=r"declares 4 layers but the tensors model\.layers\.\* have 5") as caught:
        find_layers({"num_hidden_layers": 4}, stacks(5))
    assert "correct num_hidden_layers" not in str(caught.value)
