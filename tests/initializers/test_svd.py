"""The Gram SVD against float64 LAPACK on the concatenated layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesa_jax.initializers.lesa.svd import cut_ratio, gram, layer_svd, left_vectors
from tests.support.spectra import reconstruct, relative, side_by_side, with_spectrum

OUT, LAYERS, IN = 192, 6, 80
SPECTRA = {
    "condition number 10000": np.logspace(0, -4, OUT),
    "condition number 1000": np.logspace(0, -3, OUT),
    "condition number 100": np.logspace(0, -2, OUT),
    "one outlier over a flat floor": np.r_[1, np.full(OUT - 1, 1e-3)],
    "one outlier over a dense floor": np.r_[1, 1e-3 + 1e-6 * np.arange(OUT - 1)],
    "half of all in a dense floor": np.r_[np.ones(OUT // 2), np.linspace(1.1e-3, 1e-3, OUT // 2)],
    "two clusters": np.repeat([1, 1e-3], OUT // 2),
    "dense just above the tail": np.r_[1, 0.0501 + 1e-6 * np.arange(OUT - 1)],
    "all equal": np.ones(OUT),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_every_singular_value_and_the_product_are_right(name):
    w = with_spectrum(OUT, LAYERS, IN, SPECTRA[name]).astype(np.float32)
    svd = layer_svd(jnp.asarray(w))
    truth = np.linalg.svd(side_by_side(w), compute_uv=False)
    np.testing.assert_allclose(np.sort(svd.s)[::-1], truth, rtol=1e-4)
    assert relative(reconstruct(svd), side_by_side(w)) < 1e-5
    assert np.all(svd.kept)


def test_gram_is_exact_up_to_the_diagonal_in_every_block():
    w = np.random.default_rng(2).integers(-4, 5, (3, 100, 40)).astype(np.float32)
    truth = np.einsum("loi,lpi->op", w, w)
    np.testing.assert_array_equal(np.tril(gram(jnp.asarray(w))), np.tril(truth))


def check_hard_spectrum(s: np.ndarray, scale: float, rounding: float) -> None:
    """Orthonormal U, and no more lost of the product than rounding, and what lies at or below the cut."""
    w = (with_spectrum(OUT, LAYERS, IN, s) * scale).astype(np.float32)
    svd = layer_svd(jnp.asarray(w))
    np.testing.assert_allclose(np.asarray(svd.u.T @ svd.u), np.eye(OUT), atol=1e-5)
    cut = s[s < 1.1 * cut_ratio(jnp.float32) * s[0]]
    lost = relative(reconstruct(svd) / scale, side_by_side(w) / scale)
    assert lost < rounding + np.linalg.norm(cut) / np.linalg.norm(s)


HARD = {
    "a steep tail": np.r_[np.ones(8), 3e-4 / 20.0 ** np.arange(4)],
    "a steep tail over nothing": np.r_[np.ones(8), 0.04, 3e-3, 2e-5],
    "few small ones in many null directions": np.r_[np.ones(3), 0.01 * np.ones(3)],
    "a single direction": np.ones(1),
    "four clusters": np.repeat([1, 0.04, 1e-3, 1e-4], OUT // 4),
}


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e15, 1e30])
@pytest.mark.parametrize("name", HARD)
def test_no_direction_is_lost_of_a_hard_spectrum(name, scale):
    check_hard_spectrum(HARD[name], scale, rounding=2e-6)


@settings(max_examples=20, deadline=None)
@given(
    condition=st.floats(4, 7),
    rank=st.integers(20, 120) | st.just(OUT),
    repeats=st.integers(1, 30),
    head=st.integers(0, 19),
    scale=st.floats(-12, 15),
)
def test_no_direction_is_lost_of_any_spectrum(condition, rank, repeats, head, scale):
    """Geometric spectra of that condition number whose values repeat, after a head of equal ones."""
    s = np.logspace(0, -condition, rank - head)
    s = np.r_[np.ones(head), s[np.arange(len(s)) // repeats * repeats]]
    check_hard_spectrum(s, 10**scale, rounding=5e-6)  # of thousands tried the worst loses 2.2e-6


def test_singular_values_descend_up_to_rounding():
    svd = layer_svd(jnp.asarray(with_spectrum(OUT, LAYERS, IN, SPECTRA["condition number 1000"]), jnp.float32))
    assert np.all(np.diff(svd.s) <= 1e-5 * np.asarray(svd.s[:-1]))


def test_second_eigendecomposition_is_needed():
    """Eigenvectors of the float32 Gram matrix alone miss the smallest singular values by a percent."""
    w = with_spectrum(OUT, LAYERS, IN, SPECTRA["half of all in a dense floor"]).astype(np.float32)
    truth = np.linalg.svd(side_by_side(w), compute_uv=False)
    once = np.linalg.eigh(np.einsum("loi,lpi->op", w, w))[1].T
    off, off_once = (
        np.max(
            np.abs(np.sort(np.linalg.norm(np.asarray(rows, np.float64) @ side_by_side(w), axis=1)) / truth[::-1] - 1)
        )
        for rows in (left_vectors(jnp.asarray(w)), once)
    )
    assert off < 1e-5
    assert off_once > 3e-3


def test_orthonormal_factors():
    svd = layer_svd(jnp.asarray(np.random.default_rng(1).standard_normal((LAYERS, OUT, IN)), jnp.float32))
    np.testing.assert_allclose(svd.u.T @ svd.u, np.eye(OUT), atol=1e-5)
    np.testing.assert_allclose(np.einsum("lri,lqi->rq", svd.v, svd.v), np.eye(OUT), atol=1e-5)


def test_null_directions_are_cut_not_divided_by():
    w = with_spectrum(OUT, LAYERS, IN, np.logspace(0, -2, OUT // 3)).astype(np.float32)
    svd = layer_svd(jnp.asarray(w))
    assert np.sum(svd.kept) == OUT // 3
    cut = ~np.asarray(svd.kept)
    assert not np.any(np.asarray(svd.s)[cut])
    assert not np.any(np.asarray(svd.v)[:, cut])
    assert np.max(np.abs(svd.v)) <= 1 + 1e-5  # rows of an orthonormal basis; a division by noise would leave this
    assert relative(reconstruct(svd), side_by_side(w)) < 1e-5


def test_zero_layers_have_no_directions():
    svd = layer_svd(jnp.zeros((4, 24, 16)))
    for zero in (svd.kept, svd.s, svd.v):
        assert not np.any(zero)
    np.testing.assert_allclose(svd.u.T @ svd.u, np.eye(24), atol=1e-6)


def test_a_power_of_two_scales_singular_values_and_nothing_else():
    w = jnp.asarray(with_spectrum(OUT, LAYERS, IN, SPECTRA["condition number 1000"]), jnp.float32)
    plain, large = layer_svd(jnp.copy(w)), layer_svd(w * 2.0**70)
    np.testing.assert_array_equal(plain.s * 2.0**70, large.s)
    np.testing.assert_array_equal(plain.u, large.u)
    np.testing.assert_array_equal(plain.v, large.v)


@pytest.mark.parametrize("spectrum", ["condition number 1000", "all equal"])
def test_more_rows_than_columns_in_all(spectrum):
    rank = 4 * 20
    w = with_spectrum(OUT, 4, 20, SPECTRA[spectrum][:: OUT // rank][:rank]).astype(np.float32)
    svd = layer_svd(jnp.asarray(w))
    assert (svd.u.shape, svd.s.shape, svd.v.shape) == ((OUT, rank), (rank,), (4, rank, 20))
    truth = np.linalg.svd(side_by_side(w), compute_uv=False)
    np.testing.assert_allclose(np.sort(svd.s)[::-1], truth, rtol=1e-4)
    assert relative(reconstruct(svd), side_by_side(w)) < 1e-5


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_weights_are_exact_in_float32(dtype):
    w = jnp.asarray(with_spectrum(OUT, LAYERS, IN, np.logspace(0, -1, OUT)), dtype)
    svd = layer_svd(w)
    truth = np.linalg.svd(side_by_side(np.asarray(w)), compute_uv=False)
    np.testing.assert_allclose(np.sort(svd.s)[::-1], truth, rtol=1e-4)
    assert svd.v.dtype == jnp.float32
    assert relative(reconstruct(svd), side_by_side(np.asarray(w))) < 1e-5


def test_float64_path():
    w = with_spectrum(OUT, LAYERS, IN, np.logspace(0, -6, OUT))
    with jax.enable_x64(True):
        svd = layer_svd(jnp.asarray(w), jnp.float64)
        truth = np.linalg.svd(side_by_side(w), compute_uv=False)
        np.testing.assert_allclose(np.sort(svd.s)[::-1], truth, rtol=1e-7)
        assert relative(reconstruct(svd), side_by_side(w)) < 1e-13
