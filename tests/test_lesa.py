"""Predicted layers, and how they depend on what comes together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.errors import InputError
from lesa_jax.initializers.lesa import compile_predict_layers, predict_layers
from lesa_jax.predictor import PredictorSettings, predict
from lesa_jax.svd import layer_svd

SETTINGS = PredictorSettings(hidden_size=24, epochs=2, batch_size=16)
GAPS = (1, 3)


def kinds(count: int, out: int = 40, fan_in: int = 24, layers: int = 5) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, layers, out, fan_in), np.float32)


def keys(count: int) -> list:
    return [jax.random.key(7 + i) for i in range(count)]


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (150, 24)])
def test_new_matrix_is_the_definition(shape):
    """U diag(S) G([V_l, V_{l+1}]), multiplied out the long way."""
    w = kinds(1, *shape)[0]
    svd = layer_svd(jnp.array(w))
    [prediction] = predict_layers([w], keys(1), GAPS, SETTINGS)
    assert prediction.weights.shape == (2, *shape)
    assert prediction.weights.dtype == jnp.float32
    for gap, new in zip(GAPS, prediction.weights, strict=True):
        rows = predict(prediction.fit.params, jnp.concatenate([svd.v[gap], svd.v[gap + 1]], axis=1))
        np.testing.assert_allclose(new, (svd.u * svd.s[None, :]) @ rows, rtol=1e-3, atol=1e-4)


def test_raw_space_predicts_rows_of_the_weights():
    w = kinds(1)[0]
    [prediction] = predict_layers([w], keys(1), GAPS, SETTINGS, space="raw")
    rows = predict(prediction.fit.params, jnp.concatenate([w[3], w[4]], axis=1))
    np.testing.assert_allclose(prediction.weights[1], rows, rtol=1e-3, atol=1e-5)
    assert prediction.singular_values.size == 0


def test_rank_of_a_new_matrix_is_that_of_the_network():
    [prediction] = predict_layers(kinds(1, 60, 60), keys(1), (2,), PredictorSettings(hidden_size=8, epochs=1))
    assert np.linalg.matrix_rank(prediction.weights[0], tol=1e-5) <= 9


def test_a_kind_does_not_depend_on_its_company():
    together = list(predict_layers(kinds(3), keys(3), GAPS, SETTINGS))
    [alone] = predict_layers(kinds(3)[1:2], keys(3)[1:2], GAPS, SETTINGS)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together[1]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(together[0].weights, together[1].weights)


def test_batched_kinds_agree_with_kinds_one_by_one(monkeypatch):
    """The path of accelerators, where all kinds train in one vmapped loop."""
    one_by_one = list(predict_layers(kinds(2), keys(2), GAPS, SETTINGS))
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    batched = list(predict_layers(kinds(2), keys(2), GAPS, SETTINGS))
    for a, b in zip(one_by_one, batched, strict=True):
        np.testing.assert_allclose(a.weights, b.weights, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(a.fit.losses, b.fit.losses, rtol=1e-4)


def test_same_key_same_bytes_other_key_other_weights():
    first, again, other = (
        next(predict_layers(kinds(1), [jax.random.key(seed)], GAPS, SETTINGS)).weights for seed in (0, 0, 1)
    )
    assert np.asarray(first).tobytes() == np.asarray(again).tobytes()
    assert not np.allclose(first, other)


def test_kinds_are_taken_when_they_are_due():
    """An iterator of kinds keeps one of them in memory."""
    taken = []

    def read():
        for w in kinds(2):
            taken.append(True)
            yield w

    predictions = predict_layers(read(), keys(2), GAPS, SETTINGS)
    next(predictions)
    assert len(taken) == 1


def test_half_precision_weights():
    w = kinds(1).astype(jnp.bfloat16)
    [half] = predict_layers(w, keys(1), GAPS, SETTINGS)
    [full] = predict_layers(w.astype(np.float32), keys(1), GAPS, SETTINGS)
    np.testing.assert_array_equal(half.weights, full.weights)


@pytest.mark.parametrize("space", ["svd", "raw"])
def test_nothing_is_left_to_compile_after_compiling_ahead(space, caplog):
    shape = (5, 36, 28) if space == "svd" else (5, 44, 28)  # of their own: other tests' programs must not serve
    compile_predict_layers(shape, jnp.float32, GAPS, SETTINGS, space)
    w = np.random.default_rng(0).standard_normal(shape, np.float32)
    with jax.log_compiles():
        jax.jit(lambda x: x + 1)(1)
        next(predict_layers([w], keys(1), GAPS, SETTINGS, space)).weights.block_until_ready()
    compiled = " ".join(record.getMessage() for record in caplog.records if "XLA compilation" in record.getMessage())
    assert "jit(<lambda>)" in compiled  # the log works
    for name in ("_gram_eigh", "_project", "init_params", "sample_order", "train", "_matrices"):
        assert f"jit({name})" not in compiled


def test_null_layers_give_finite_matrices():
    [prediction] = predict_layers(np.zeros((1, 5, 12, 8), np.float32), keys(1), GAPS, SETTINGS)
    assert not np.any(prediction.weights)


def test_too_few_layers_and_impossible_gaps():
    with pytest.raises(InputError, match="at least 3 layers, got 2"):
        next(predict_layers(kinds(1, layers=2), keys(1), (0,), SETTINGS))
    with pytest.raises(InputError, match="gaps go from 0 to 3"):
        next(predict_layers(kinds(1), keys(1), (4,), SETTINGS))
