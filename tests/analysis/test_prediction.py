"""How far LESA's network tells layers that it was not taught: of smooth layers, of random ones, and of large ones."""

import numpy as np
import pytest

from lesa_jax.analysis import prediction as module
from lesa_jax.analysis.prediction import held_out_layers, leading_rows, prediction

SHAPE = (24, 128, 64)


def random_layers(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def smooth_layers():
    """From one matrix to another in equal steps: each layer is the mean of its neighbours."""
    low, high = random_layers(1, (2, *SHAPE[1:]))
    t = np.linspace(0, 1, SHAPE[0], dtype=np.float32)[:, None, None]
    return (1 - t) * low + t * high


def found(w, lowest=0):
    result = prediction(w, lowest)
    assert result is not None
    return result


def test_smooth_layers_are_predicted_and_random_ones_are_not():
    smooth, random = found(smooth_layers()), found(random_layers())
    assert smooth.held_out == random.held_out == (3, 8, 13, 18)
    assert smooth.error < 0.05
    assert random.error > 1.2  # noise as loud as the layers
    assert random.scaled_error == pytest.approx(1, abs=1e-3)
    assert smooth.directions == random.directions == 128


def test_one_layer_that_breaks_the_line_is_missed_where_it_is_held_out():
    """And hardly where it is taught: what is measured are the held-out layers."""
    w, other = smooth_layers(), random_layers(2, SHAPE[1:])
    held_out, taught = w.copy(), w.copy()
    held_out[8], taught[10] = other, other
    assert found(held_out).error > 0.25
    assert found(taught).error < 0.15


def test_errors_are_those_of_the_matrices_whatever_their_size_and_dtype():
    w = smooth_layers()
    whole = found(w)
    assert found(w * np.float32(2**-12)).error == pytest.approx(whole.error, rel=1e-3)
    assert found(w.astype(np.float16)).error == pytest.approx(whole.error, abs=5e-3)


def test_wide_matrices_by_their_leading_directions(monkeypatch):
    """Subspace iteration finds the directions of the whole decomposition; beyond them nothing is asked."""
    u, v = (np.linalg.qr(random_layers(seed, (128, 128)))[0] for seed in (3, 4))
    s = np.geomspace(1, 1e-3, 128, dtype=np.float32)
    w = np.stack([((u * s) @ np.roll(v, layer, axis=0)) for layer in range(10)])[:, :, :96]
    rows = np.asarray(leading_rows(w, 40))
    assert rows.shape == (10, 48, 96)
    beside = np.hstack(list(w))
    expected = np.linalg.svd(beside, compute_uv=False)[:40]
    np.testing.assert_allclose(np.linalg.svd(np.hstack(list(rows)), compute_uv=False)[:40], expected, rtol=5e-3)
    monkeypatch.setattr(module, "DIRECTIONS", 40)
    assert found(w).directions == 40
    assert found(smooth_layers()).error < 0.35  # 0.16 to 0.25 by the seed and the signs of directions
    np.testing.assert_array_equal(leading_rows(w, 128), w)


def test_which_layers_are_held_out():
    assert [held_out_layers(count) for count in (1, 3, 4, 5, 6)] == [(), (), (2,), (2,), (3,)]
    assert held_out_layers(16) == (3, 8, 13)
    assert all(0 < layer < count - 1 for count in range(4, 40) for layer in held_out_layers(count))
    assert all(len(held_out_layers(count)) < count - 2 for count in range(4, 40))


def test_where_there_is_nothing_to_say():
    assert prediction(random_layers(shape=(3, 8, 8))) is None
    silent = random_layers(shape=(6, 8, 8))
    silent[3] = 0
    assert prediction(silent) is None
    assert found(random_layers(shape=(6, 8, 8)), lowest=2).held_out == (5,)


def test_the_models_weights_are_left_alone():
    w = random_layers(shape=(6, 8, 8))
    before = w.copy()
    prediction(w)
    np.testing.assert_array_equal(w, before)
