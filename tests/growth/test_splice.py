"""Splicing trees is what expansion does to files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.growth.splice import splice, split
from lesa_jax.models.load import load_model
from lesa_jax.models.parts import layers_of
from lesa_jax.planning.methods import METHODS, PredictorSettings
from lesa_jax.planning.placement import make_plan
from tests.support.tiny import tiny

PLANS = [make_plan(5, method) for method in METHODS] + [make_plan(5, "lesa", gaps=[0, 3])]


def layers(count: int, offset: float) -> dict[str, jax.Array]:
    return {
        "w": offset + jnp.arange(count * 6.0).reshape(count, 2, 3),
        "norm": offset + jnp.arange(count * 2.0).reshape(-1, 2),
    }


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_every_slot_gets_its_layer(plan):
    old, new = layers(5, 0.0), layers(len(plan.new_layers), 1000.0)
    grown = splice(old, new, plan)
    fresh = iter(range(len(plan.new_layers)))
    for position, slot in enumerate(plan.slots):
        source, row = (new, next(fresh)) if slot.new else (old, slot.layer)
        for name, leaf in grown.items():
            np.testing.assert_array_equal(leaf[position], source[name][row])


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_split_inverts_splice(plan):
    old, new = layers(5, 0.0), layers(len(plan.new_layers), 1000.0)
    jax.tree.map(np.testing.assert_array_equal, split(splice(old, new, plan), plan), (old, new))


@pytest.mark.slow
def test_spliced_trees_equal_the_written_checkpoint(tmp_path):
    quick = PredictorSettings(epochs=1, hidden_size=16)
    report = expand(ExpandSettings(str(tiny("llama")), tmp_path / "out", method="lesa", predictor=quick))
    before = layers_of(*load_model(tiny("llama")))
    after = layers_of(*load_model(tmp_path / "out"))
    _, new = split(after, report.plan)
    jax.tree.map(np.testing.assert_array_equal, splice(before, new, report.plan), after)


def test_stacks_of_another_length_are_an_error():
    with pytest.raises(ValueError, match=r"new layers: stacks of \[3\], but the plan has 2"):
        splice(layers(5, 0.0), layers(3, 0.0), make_plan(5, "lesa"))
