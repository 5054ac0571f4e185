"""What work takes at least: its operations, and how fast a device multiplies and copies matrices."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from lesa_jax.parallel.rates import product_rate
from lesa_jax.parallel.targets import CHIPS
from lesa_jax.planning.methods import PUBLISHED

# Bytes a second between one JAX device and its memory, from the vendors' data sheets; names as in `training.peaks`.
BANDWIDTHS = {
    "NVIDIA H100 80GB HBM3": 3.35e12,
    "NVIDIA H200": 4.8e12,
    "NVIDIA A100-SXM4-40GB": 1.555e12,
    "NVIDIA A100-SXM4-80GB": 2.039e12,
    **{chip.kind: chip.bandwidth for chip in CHIPS.values() if chip.platform == "tpu"},
    **{f"TPU {name}": chip.bandwidth for name, chip in CHIPS.items() if chip.platform == "tpu"},
}


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of a call, waiting for the arrays that it returns."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def matmul_rate(size: int, dtype: DTypeLike = jnp.float32) -> float:
    """Operations a second of a `size`-cube product of random numbers, the best of five; float32 in full precision."""
    precision = lax.Precision.HIGHEST if jnp.dtype(dtype) == jnp.float32 else lax.Precision.DEFAULT
    return product_rate(size, dtype, tries=5, precision=precision)


def update_rate(nbytes: int) -> float:
    """Bytes read and written a second when an array of so many bytes is changed in place, again and again as weights
    and moments are, so that caches count; the best of five."""
    times = max(2, (1 << 28) // nbytes)
    change = jax.jit(lambda a: lax.fori_loop(0, times, lambda _, a: 1 - a, a), donate_argnums=0)
    a = change(jnp.ones(nbytes // 4))

    def work() -> jax.Array:
        nonlocal a
        a = change(a)
        return a

    return 2 * nbytes * times / min(seconds(work) for _ in range(5))


def gram_flops(out: int, columns: int) -> float:
    """One triangle of a Gram matrix."""
    return out * out * columns


def eigen_flops(n: int) -> float:
    """A symmetric eigendecomposition with vectors."""
    return 9 * n**3


def svd_flops(layers: int, out: int, fan_in: int) -> float:
    """Gram matrix, projection of every layer, and eigenvectors."""
    return gram_flops(out, layers * fan_in) + layers * 2 * out * out * fan_in + eigen_flops(out)


def predictor_flops(samples: int, fan_in: int) -> float:
    """Of LESA's predictor in training: forward, and both gradients but that of the first layer's input."""
    hidden = PUBLISHED.hidden_size
    first, second, third = 2 * fan_in * hidden, hidden * hidden, hidden * fan_in
    return samples * (4 * first + 6 * (second + third))
