"""What is trained, and that its weights are those of the checkpoint."""

import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.models.load import load_model
from lesa_jax.planning.placement import insert
from lesa_jax.training.parameters import choose
from tests.support.tiny import tiny
from tests.support.trees import PLANS, by_name, full_by_name, pieces


@pytest.mark.parametrize(
    ("train", "plan", "message"),
    [
        ("new", None, "no growth.json"),
        ("new+norms", None, "no growth.json"),
        ("layers.99", None, "matches no tensor; names look like"),
        ("(", None, "not a regular expression"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(train, plan, message):
    with pytest.raises(InputError, match=message):
        choose(train, ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"], plan)


def test_new_and_norms():
    plan = insert(2, [0])
    names = [f"model.layers.{i}.{kind}.weight" for i in range(3) for kind in ("mlp.up_proj", "input_layernorm")]
    assert choose("new", names, plan) == {n for n in names if ".1." in n}
    assert choose("new+norms", [*names, "model.norm.weight"], plan) == {
        "model.norm.weight",
        "model.layers.1.mlp.up_proj.weight",
        *(n for n in names if "layernorm" in n),
    }


def test_weights_are_those_of_the_plain_loader():
    (trained, frozen), _, leaves, _, _ = pieces("llama", "new", PLANS["irregular"])
    params, config = load_model(tiny("llama"))
    loaded = by_name(trained, leaves) | by_name(frozen, leaves)
    plain = full_by_name(params, config)
    assert loaded.keys() == plain.keys()
    for name, value in loaded.items():
        np.testing.assert_array_equal(value, np.asarray(plain[name], np.float32))
