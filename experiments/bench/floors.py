"""What work takes at least: its operations, and how fast a device multiplies and copies matrices."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

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
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else lax.Precision.DEFAULT
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=precision))
    product(a).block_until_ready()
    return 2 * size**3 / min(seconds(lambda: product(a)) for _ in range(5))


def copy_rate(nbytes: int) -> float:
    """Bytes read and written a second when an array of so many bytes is negated, the best of five."""
    a = jnp.ones(nbytes // 4)
    negate = jax.jit(jnp.negative)
    negate(a).block_until_ready()
    return 2 * nbytes / min(seconds(lambda: negate(a)) for _ in range(5))


def svd_flops(layers: int, out: int, fan_in: int) -> float:
    """Gram matrix and projection of every layer, and a symmetric eigendecomposition with vectors at 9 n^3."""
    return layers * 2 * 2 * out * out * fan_in + 9 * out**3


def predictor_flops(samples: int, fan_in: int) -> float:
    """Of LESA's predictor in training: forward, and both gradients but that of the first layer's input."""
    hidden = PUBLISHED.hidden_size
    first, second, third = 2 * fan_in * hidden, hidden * hidden, hidden * fan_in
    return samples * (4 * first + 6 * (second + third))
