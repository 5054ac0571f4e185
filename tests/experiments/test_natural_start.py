"""The natural-gradient step of silenced outputs: its gradient is the model's, and a step lowers the loss."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

from lesa_jax import demo
from lesa_jax.evaluation.sample import sample_rows
from lesa_jax.models.load import load_model
from tests.support.growth import grow

# experiments/ is no package: its scripts are run, and import one another by name.
sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "recipe"))

import natural_start

TEXT = "".join(f"The {i}th of all the words is word {i * i % 97}, and so on.\n" for i in range(300))


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("natural") / "grown"
    grow(demo.MODEL_DIRECTORY, folder, "llama_pro", layers=18)
    return folder


@pytest.mark.slow
def test_the_gradient_is_that_of_the_loss_and_inputs_are_what_the_outputs_read(grown):
    params, config = load_model(grown)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    new = natural_start.read_growth(grown, config.num_layers).plan.new_layers
    rows = jnp.asarray(sample_rows(grown, TEXT, config, 128))
    found = natural_start.statistics(params, rows, new, config)
    gradient = flatten_dict(jax.grad(lambda p: natural_start.loss_of(p, rows, config))(params), sep=".")
    tokens = rows.shape[1]
    for kind, (a, g, step) in found.items():
        expected = np.asarray(gradient[f"model.layers.{kind}.weight"])[list(new)]
        # Gradients are of tokens that predict one; inputs and products are means over all tokens.
        np.testing.assert_allclose(np.asarray(step) * tokens / (tokens - 1), expected, atol=1e-6)
        assert np.all(np.linalg.eigvalsh(np.asarray(a)) > -1e-5)
        assert np.all(np.linalg.eigvalsh(np.asarray(g)) > -1e-6)


@pytest.mark.slow
def test_a_step_lowers_the_loss_and_changes_the_new_outputs_alone(grown, tmp_path):
    before, after = natural_start.natural_start(grown, TEXT, tmp_path / "out", 128)
    assert after < before - 1e-4
    old, new = load_file(grown / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    layers = natural_start.read_growth(grown, load_model(grown)[1].num_layers).plan.new_layers
    assert changed == {f"model.layers.{layer}.{kind}.weight" for layer in layers for kind in natural_start.OUTPUTS}
    params, config = load_model(tmp_path / "out")
    rows = jnp.asarray(sample_rows(tmp_path / "out", TEXT, config, 128))
    assert float(natural_start.loss_of(params, rows, config)) == pytest.approx(
        after, abs=1e-3
    )  # stored in half precision
