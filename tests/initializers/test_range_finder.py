"""The SVD of lower rank: nearly as good as the best of that rank, and honest about what it leaves out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.initializers.lesa.predict import prediction_programs
from lesa_jax.initializers.lesa.range_finder import find_range
from lesa_jax.initializers.lesa.svd import layer_svd, svd_programs
from lesa_jax.planning.methods import Lesa, PredictorSettings
from lesa_jax.planning.ranks import SPARE, kept_rank
from tests.support.spectra import reconstruct, relative, side_by_side, with_spectrum

OUT, LAYERS, IN, RANK = 192, 6, 80, 64
SPECTRA = {
    "falling fast": np.logspace(0, -4, OUT),
    "falling slowly": np.logspace(0, -1, OUT),
    "a step": np.r_[np.ones(RANK), np.full(OUT - RANK, 0.01)],
    "a step inside": np.r_[np.ones(8), np.full(OUT - 8, 1e-4)],
    "all equal": np.ones(OUT),
}


def best(s: np.ndarray, rank: int) -> float:
    """What no matrix of this rank can do without (Eckart and Young)."""
    return float(np.sqrt(np.sum(s[rank:] ** 2) / np.sum(s**2)))


@pytest.mark.parametrize("name", SPECTRA)
def test_hardly_more_is_left_out_than_must_be_and_that_is_what_is_said(name):
    w = with_spectrum(OUT, LAYERS, IN, SPECTRA[name]).astype(np.float32)
    svd = layer_svd(jnp.asarray(w), rank=RANK)
    assert svd.u.shape == (OUT, RANK)
    assert svd.v.shape == (LAYERS, RANK, IN)
    np.testing.assert_allclose(svd.u.T @ svd.u, np.eye(RANK), atol=1e-5)
    left_out, must = relative(reconstruct(svd), side_by_side(w)), best(SPECTRA[name], RANK)
    assert svd.error is not None
    assert float(svd.error) == pytest.approx(left_out, abs=2e-3)  # a root of what float32 leaves of 1 - 1
    assert must - 1e-6 <= left_out < 1.05 * must + 2e-6


def test_large_singular_values_are_right_where_others_fall_off():
    s = np.logspace(0, -3, OUT)
    svd = layer_svd(jnp.asarray(with_spectrum(OUT, LAYERS, IN, s), jnp.float32), rank=RANK)
    np.testing.assert_allclose(svd.s[: RANK // 2], s[: RANK // 2], rtol=1e-4)
    assert np.all(np.asarray(svd.s) <= s[:RANK] * (1 + 1e-4))  # by Rayleigh and Ritz


@pytest.mark.parametrize("shape", [(3, 40, 8), (2, 24, 30)])
def test_more_than_there_is_is_everything(shape):
    w = np.random.default_rng(0).standard_normal(shape, np.float32)
    whole = layer_svd(w)
    for rank in (24, 25, 4000):
        same = layer_svd(w, rank=rank)
        assert same.error is None
        np.testing.assert_array_equal(same.u, whole.u)
        np.testing.assert_array_equal(same.v, whole.v)


def test_nearly_all_directions_are_exact():
    """As many are looked for as there are, and so none is missed."""
    w = np.random.default_rng(0).standard_normal((3, 60, 40), np.float32)
    whole, most = layer_svd(w), layer_svd(w, rank=60 - SPARE)
    np.testing.assert_allclose(most.s, whole.s[: 60 - SPARE], rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.sum(most.u * whole.u[:, : 60 - SPARE], axis=0)), 1, atol=1e-3)


def test_weights_of_any_size_have_the_same_directions():
    w = jnp.asarray(np.random.default_rng(1).standard_normal((LAYERS, OUT, IN)), jnp.float32)
    plain, large = layer_svd(jnp.copy(w), rank=16), layer_svd(w * 2.0**70, rank=16)
    np.testing.assert_array_equal(plain.u, large.u)
    np.testing.assert_array_equal(plain.s * 2.0**70, large.s)


def test_zeros_leave_nothing_out():
    svd = layer_svd(jnp.zeros((3, 60, 40)), rank=8)
    assert not np.any(svd.kept)
    assert svd.error == 0


def test_a_basis_is_the_same_every_time():
    w = np.random.default_rng(2).standard_normal((3, 60, 40), np.float32)
    np.testing.assert_array_equal(find_range(w, 20)[0], find_range(w, 20)[0])


@pytest.mark.parametrize(("out", "fan_in"), [(60, 40), (40, 200)])
def test_programs_are_those_that_run(out, fan_in):
    """Nothing is compiled beyond what is compiled ahead, but for additions and the like."""
    w, rank = np.random.default_rng(0).standard_normal((4, out, fan_in)).astype(np.float32), 7
    names = {program.name for program in svd_programs(jax.ShapeDtypeStruct(w.shape, w.dtype), rank)}
    assert {"sketch", "iteration", "orthonormal basis", "layers in the basis"} <= names
    assert "sketch" not in {program.name for program in svd_programs(jax.ShapeDtypeStruct(w.shape, w.dtype))}
    for program in prediction_programs(w.shape, w.dtype, Lesa(), PredictorSettings(rank=rank, hidden_size=8)):
        program.compile()
    assert layer_svd(w, rank=rank).v.shape[1] == kept_rank(w.shape, rank) == 7
