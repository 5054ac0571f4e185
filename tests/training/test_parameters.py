"""What is trained, and that its weights are those of the checkpoint."""

import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.models.config import read_config
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
        choose(train, read_config(open_checkpoint(tiny("llama")).config), plan)


def test_new_and_norms():
    checkpoint = open_checkpoint(tiny("qwen2"))  # biases are no norms
    config = read_config(checkpoint.config)
    new = {name for name in checkpoint.entries if name.startswith(("model.layers.1.", "model.layers.3."))}
    assert choose("new", config, insert(4, [0, 1])) == new
    norms = {name for name in checkpoint.entries if "norm" in name}
    assert len(norms) == 2 * 6 + 1
    assert choose("new+norms", config, insert(4, [0, 1])) == new | norms


def test_weights_are_those_of_the_plain_loader():
    (trained, frozen), _, leaves, _, _ = pieces("llama", "new", PLANS["irregular"])
    params, config = load_model(tiny("llama"))
    loaded = by_name(trained, leaves) | by_name(frozen, leaves)
    plain = full_by_name(params, config)
    assert loaded.keys() == plain.keys()
    for name, value in loaded.items():
        np.testing.assert_array_equal(value, np.asarray(plain[name], np.float32))
