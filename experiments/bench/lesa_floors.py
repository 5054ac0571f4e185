"""What LESA takes at least on this machine, at the rates that are measured on it."""

import functools
import time
from collections.abc import Iterable
from dataclasses import dataclass

import jax
from floors import eigen_flops, gram_flops, matmul_rate, predictor_flops, update_rate

from lesa_jax.growth.effort import SKETCHES
from lesa_jax.initializers.lesa.svd import descending_eigh
from lesa_jax.planning.methods import PUBLISHED
from lesa_jax.planning.ranks import kept_rank, searched

MEASURED = 4096  # rows of the matrices whose rates are taken
ARRAYS = 4  # that AdamW reads and writes: weights, gradient, two moments


@dataclass(frozen=True)
class Rates:
    """Operations a second.

    Attributes:
      products: of a large matrix product.
      eigenvectors: of a large symmetric eigendecomposition, at 9 n^3.
    """

    products: float
    eigenvectors: float

    def __str__(self) -> str:
        return f"products {self.products / 1e9:.0f} GFLOP/s, eigenvectors {self.eigenvectors / 1e9:.0f} GFLOP/s"


def measure_rates() -> Rates:
    a = jax.random.normal(jax.random.key(0), (MEASURED, MEASURED))
    gram = jax.block_until_ready(a @ a.T)
    start = time.perf_counter()
    jax.block_until_ready(descending_eigh(gram))
    return Rates(matmul_rate(MEASURED), eigen_flops(MEASURED) / (time.perf_counter() - start))


def lesa_floors(
    shapes: Iterable[tuple[int, ...]], layers: int, rates: Rates, rank: int | None = None
) -> dict[str, float]:
    """Seconds of the stages that compute, for kinds of [out, in] in so many original layers.

    Of the SVD Gram matrix, eigenvectors and V, a second eigendecomposition where small singular values want one not
    counted; of learning the predictor's products, and what AdamW reads and writes at the rate of arrays of that size.
    """
    decompose = learn = 0.0
    for out, fan_in in shapes:
        shape = layers, out, fan_in
        kept, size = kept_rank(shape, rank), searched(shape, rank)
        looking = 0 if size is None else SKETCHES * size * out * layers * fan_in
        size = size or out
        products = looking + gram_flops(size, layers * fan_in) + 2 * kept * out * layers * fan_in
        decompose += products / rates.products + eigen_flops(size) / rates.eigenvectors
        samples = PUBLISHED.epochs * (layers - 2) * kept
        learn += predictor_flops(samples, fan_in) / rates.products
        learn += samples / PUBLISHED.batch_size * adamw_floor(fan_in)
    return {"decompose": decompose, "learn": learn}


@functools.cache
def adamw_floor(fan_in: int) -> float:
    """Seconds of an update of a predictor for rows of this length."""
    nbytes = 4 * ARRAYS * PUBLISHED.hidden_size * (3 * fan_in + PUBLISHED.hidden_size)
    return 2 * nbytes / update_rate(nbytes)
