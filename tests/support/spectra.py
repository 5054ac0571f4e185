"""Matrices of known singular values, and what a decomposition makes of them."""

import numpy as np

from lesa_jax.initializers.lesa.svd import LayerSVD


def with_spectrum(out: int, layers: int, fan_in: int, s: np.ndarray) -> np.ndarray:
    """Matrices [layers, out, in] whose concatenation has exactly these singular values, in random directions."""
    rng = np.random.default_rng(0)
    u = np.linalg.qr(rng.standard_normal((out, len(s))))[0]
    v = np.linalg.qr(rng.standard_normal((layers * fan_in, len(s))))[0]
    return (u * s @ v.T).reshape(out, layers, fan_in).swapaxes(0, 1)


def side_by_side(w: np.ndarray) -> np.ndarray:
    return np.concatenate(list(w.astype(np.float64)), axis=1)


def reconstruct(svd: LayerSVD) -> np.ndarray:
    return np.asarray(svd.u, np.float64) * np.asarray(svd.s, np.float64) @ side_by_side(np.asarray(svd.v))


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
