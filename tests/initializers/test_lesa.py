"""Predicted layers, and how they depend on what comes together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.initializers.lesa.predict import decompose, halvings, learn, predict_matrices, prediction_programs
from lesa_jax.initializers.lesa.predictor import PredictorSettings, predict
from lesa_jax.initializers.lesa.svd import layer_svd
from lesa_jax.planning.methods import Lesa

SETTINGS = PredictorSettings(hidden_size=24, epochs=2, batch_size=16)
GAPS = (1, 3)
KEY = jax.random.key(7)
LESA = Lesa()


def weights(out: int = 40, fan_in: int = 24, layers: int = 5) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((layers, out, fan_in), np.float32)


def predicted(w, gaps=GAPS, lesa=LESA, settings=SETTINGS, key=KEY):
    basis = decompose(w, lesa.space)
    return predict_matrices(basis, learn(basis, key, lesa, settings), gaps)


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
    assert prediction.singular_values.size == 0


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
    agreement = float(predict_matrices(basis, fit, GAPS).agreement)
    assert agreement == pytest.approx(factor.item(), rel=1e-4)
    assert 0.01 < agreement < 1


def test_agreement_of_a_predictor_that_says_the_opposite_is_nothing():
    basis = decompose(np.repeat(weights(layers=1), 5, axis=0), "raw")
    fit = learn(basis, KEY, Lesa("raw"), PredictorSettings(hidden_size=24, epochs=40, batch_size=16))
    wrong = fit.replace(params=fit.params | {name: -fit.params[name] for name in ("third_kernel", "third_bias")})
    assert predict_matrices(basis, fit, GAPS).agreement > 0.5
    assert predict_matrices(basis, wrong, GAPS).agreement == 0


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
    assert halvings((1, 3), 5) == ([((1, 3), (2, 4))], (5, 6))
    assert halvings((2, 2, 2), 4) == ([((2,), (3,)), ((2, 4), (4, 3))], (5, 4, 6))
    assert halvings((0, 0, 1), 4) == ([((0, 1), (1, 2)), ((0,), (4,))], (6, 4, 5))


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
    three = predict_matrices(basis, fit, (2, 2, 2)).weights
    np.testing.assert_allclose(three, jnp.stack(expected), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(predict_matrices(basis, fit, (2,)).weights[0], three[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("space", ["svd", "raw"])
def test_nothing_is_left_to_compile_after_compiling_ahead(space, caplog):
    shape = (5, 36, 28) if space == "svd" else (5, 44, 28)  # of their own: other tests' programs must not serve
    for program in prediction_programs(shape, jnp.float32, GAPS, Lesa(space), SETTINGS):
        program.compile()
    w = np.random.default_rng(0).standard_normal(shape, np.float32)
    with jax.log_compiles():
        jax.jit(lambda x: x + 1)(1)
        predicted(w, lesa=Lesa(space)).weights.block_until_ready()
    compiled = " ".join(record.getMessage() for record in caplog.records if "XLA compilation" in record.getMessage())
    assert "jit(<lambda>)" in compiled  # the log works
    for name in ("_gram_eigh", "_project", "init_params", "sample_order", "train", "_matrices"):
        assert f"jit({name})" not in compiled


def test_null_layers_give_finite_matrices():
    assert not np.any(predicted(np.zeros((5, 12, 8), np.float32)).weights)


def test_too_few_layers_and_impossible_gaps():
    with pytest.raises(InputError, match="at least 3 layers, got 2"):
        predicted(weights(layers=2), (0,))
    with pytest.raises(InputError, match="gaps go from 0 to 3"):
        predicted(weights(), (4,))
