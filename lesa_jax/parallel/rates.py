"""How fast a device multiplies matrices, by trying."""

import time

import jax
from jax.typing import DTypeLike


def product_rate(
    size: int, dtype: DTypeLike = "float32", tries: int = 3, precision: jax.lax.PrecisionLike = None
) -> float:
    """Operations a second of a `size`-cube product of random numbers, the best of some tries."""
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda a: jax.numpy.matmul(a, a, precision=precision))
    product(a).block_until_ready()
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)
