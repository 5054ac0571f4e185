"""Predicted layers, and how they depend on what comes together."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.scratch import Scratch
from lesa_jax.initializers.lesa.predict import (
    agreement,
    decompose,
    halvings,
    learn,
    new_matrices,
    prediction_programs,
)
from lesa_jax.initializers.lesa.predictor import Fit, PredictorSettings, predict
from lesa_jax.initializers.lesa.svd import layer_svd
from lesa_jax.planning.methods import Lesa

SETTINGS = PredictorSettings(hidden_size=24, epochs=2, batch_size=16)
GAPS = (1, 3)
KEY = jax.random.key(7)
LESA = Lesa()


def weights(out: int = 40, fan_in: int = 24, layers: int = 5) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((layers, out, fan_in), np.float32)


class Predicted(NamedTuple):
    weights: np.ndarray
    fit: Fit
    agreement: float


def predicted(w, gaps=GAPS, lesa=LESA, settings=SETTINGS, key=KEY, room=None) -> Predicted:
    """On the device, or with rows in `room`."""
    basis = decompose(w, lesa.space, room)
    fit = learn(basis, key, lesa, settings)
    new = np.stack([np.asarray(matrix) for matrix in new_matrices(basis, fit.params, gaps)])
    return Predicted(new, fit, float(agreement(basis, fit.params)))


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (150, 24)])
def test_new_matrix_is_the_definition(shape):
    """U diag(S) G([V_l, V_{l+1}]), multiplied out the long way."""
    w = weights(*shape)
    svd = layer_svd(jnp.array(w))
    prediction = predicted(w)
    assert prediction.weights.shape == (2, *shape)
    assert prediction.weights.dtype == jnp.float32
    for gap, new in zip(GAPS, prediction.weights, strict=True):
        rows = predict(prediction.fit.params, jnp.concatenate([svd.v[gap], svd.v[gap + 1]], axis=1))
        np.testing.assert_allclose(new, (svd.u * svd.s[None, :]) @ rows, rtol=1e-3, atol=1e-4)


def test_raw_space_predicts_rows_of_the_weights():
    w = weights()
    prediction = predicted(w, lesa=Lesa("raw"))
    rows = predict(prediction.fit.params, jnp.concatenate([w[3], w[4]], axis=1))
    np.testing.assert_allclose(prediction.weights[1], rows, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("space", ["svd", "raw"])
def test_agreement_is_the_factor_that_brings_predictions_of_old_layers_nearest_to_them(space):
    """Found by numpy's least squares on whole matrices, that have noise and something to learn."""
    rising = weights() + 0.4 * np.linspace(1, 2, 5)[:, None, None] * weights(layers=1)
    basis = decompose(rising, space)
    settings = PredictorSettings(hidden_size=24, epochs=40, batch_size=16, norm_weight=0.1)  # as loud as they should be
    fit = learn(basis, KEY, Lesa(space), settings)
    made = []
    for layer in range(1, 4):
        rows = predict(fit.params, jnp.concatenate([basis.v[layer - 1], basis.v[layer + 1]], axis=1))
        made.append(np.asarray(rows if space == "raw" else (basis.u * basis.s[None, :]) @ rows))
    factor = np.linalg.lstsq(np.stack(made).reshape(-1, 1), rising[1:4].reshape(-1), rcond=None)[0]
    found = float(agreement(basis, fit.params))
    assert found == pytest.approx(factor.item(), rel=1e-4)
    assert 0.01 < found < 1


def test_agreement_of_a_predictor_that_says_the_opposite_is_nothing():
    basis = decompose(np.repeat(weights(layers=1), 5, axis=0), "raw")
    fit = learn(basis, KEY, Lesa("raw"), PredictorSettings(hidden_size=24, epochs=40, batch_size=16))
    wrong = fit.params | {name: -fit.params[name] for name in ("third_kernel", "third_bias")}
    assert agreement(basis, fit.params) > 0.5
    assert agreement(basis, wrong) == 0


def test_rank_of_a_new_matrix_is_that_of_the_network():
    prediction = predicted(weights(60, 60), (2,), settings=PredictorSettings(hidden_size=8, epochs=1))
    assert np.linalg.matrix_rank(prediction.weights[0], tol=1e-5) <= 9


def test_same_key_same_bytes_other_key_other_weights():
    first, again, other = (predicted(weights(), key=jax.random.key(seed)).weights for seed in (0, 0, 1))
    assert np.asarray(first).tobytes() == np.asarray(again).tobytes()
    assert not np.allclose(first, other)


def test_half_precision_weights():
    w = weights().astype(jnp.bfloat16)
    np.testing.assert_array_equal(predicted(w).weights, predicted(w.astype(np.float32)).weights)


def test_the_shuffled_control_learns_from_other_neighbours():
    w = weights()
    plain, shuffled = predicted(w), predicted(w, lesa=Lesa(shuffled=True))
    assert not np.allclose(plain.weights, shuffled.weights)
    alike = np.repeat(w[:1], 5, axis=0)  # no order to lose
    np.testing.assert_allclose(
        predicted(alike).weights, predicted(alike, lesa=Lesa(shuffled=True)).weights, rtol=1e-3, atol=1e-4
    )


def test_halving_predicts_the_middle_first():
    assert halvings(1) == [(1, 0, 2)]
    assert halvings(2) == [(2, 0, 3), (1, 0, 2)]
    assert halvings(3) == [(2, 0, 4), (1, 0, 2), (3, 2, 4)]


@pytest.mark.parametrize("space", ["svd", "raw"])
def test_several_layers_in_a_gap_are_predicted_from_each_other(space):
    w = weights()
    lesa = Lesa(space)
    basis = decompose(jnp.array(w), space)
    fit = learn(basis, KEY, lesa, SETTINGS)

    def between(a, b):
        return predict(fit.params, jnp.concatenate([a, b], axis=1))

    def matrix(rows):
        return rows if space == "raw" else (basis.u * basis.s[None, :]) @ rows

    middle = between(basis.v[2], basis.v[3])
    expected = [matrix(rows) for rows in (between(basis.v[2], middle), middle, between(middle, basis.v[3]))]
    three = list(new_matrices(basis, fit.params, (2, 2, 2)))
    np.testing.assert_allclose(jnp.stack(three), jnp.stack(expected), rtol=1e-3, atol=1e-4)
    [one] = new_matrices(basis, fit.params, (2,))
    np.testing.assert_allclose(one, three[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("space", ["svd", "raw"])
def test_nothing_is_left_to_compile_after_compiling_ahead(space, caplog, tmp_path):
    shape = (5, 36, 28) if space == "svd" else (5, 44, 28)  # of their own: other tests' programs must not serve
    for program in prediction_programs(shape, jnp.float32, Lesa(space), SETTINGS):
        program.compile()
    w = np.random.default_rng(0).standard_normal(shape, np.float32)
    with jax.log_compiles():
        jax.jit(lambda x: x + 1)(1)
        predicted(w, lesa=Lesa(space), room=Scratch(tmp_path, 10**9))
    compiled = " ".join(record.getMessage() for record in caplog.records if "XLA compilation" in record.getMessage())
    assert "jit(<lambda>)" in compiled  # the log works
    for name in ("_add_gram", "_project", "_scale_rows", "init_params", "sample_order", "train_on", "_matrix"):
        assert f"jit({name})" not in compiled


@pytest.mark.parametrize("gaps", [pytest.param(GAPS, marks=pytest.mark.slow), (0, 2, 2, 2)])
@pytest.mark.parametrize("lesa", [Lesa(), Lesa("raw"), Lesa(shuffled=True)], ids=["svd", "raw", "shuffled"])
def test_where_rows_are_kept_changes_no_bit(lesa, gaps, tmp_path, monkeypatch):
    """In memory or in a file, and however many batches are laid out at once. On the device it is a matter of
    rounding: there the batches are gathered by the same program that trains."""
    w = weights(60, 24).astype(jnp.bfloat16)
    memory, disk, device = (
        predicted(w, gaps, lesa, room=room) for room in (Scratch(tmp_path, 10**9), Scratch(tmp_path, 0), None)
    )
    monkeypatch.setattr("lesa_jax.initializers.lesa.streaming.AT_ONCE", 1 << 14)
    pieces = predicted(w, gaps, lesa, room=Scratch(tmp_path, 0))
    for other in (disk, pieces):
        assert memory.weights.tobytes() == other.weights.tobytes()
        assert memory.agreement == other.agreement
        for losses, theirs in zip(jax.tree.leaves(memory.fit), jax.tree.leaves(other.fit), strict=True):
            np.testing.assert_array_equal(losses, theirs)
    np.testing.assert_allclose(memory.weights, device.weights, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(memory.fit.losses, device.fit.losses, rtol=1e-4, atol=1e-6)
    assert not list(tmp_path.iterdir())


def test_null_layers_give_finite_matrices():
    assert not np.any(predicted(np.zeros((5, 12, 8), np.float32)).weights)


def test_too_few_layers_and_impossible_gaps():
    with pytest.raises(InputError, match="at least 3 layers, got 2"):
        predicted(weights(layers=2), (0,))
    with pytest.raises(InputError, match="gaps go from 0 to 3"):
        predicted(weights(), (4,))
