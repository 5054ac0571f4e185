"""How long new matrices will take here, before any is made: by how fast this machine multiplies matrices."""

import jax.numpy as jnp

from lesa_jax.growth.compute import request_of
from lesa_jax.growth.effort import effort
from lesa_jax.growth.job import ExpandJob
from lesa_jax.parallel.mesh import platform_of
from lesa_jax.parallel.rates import product_rate

SIZE = 2048  # of the product that the rate is taken of
# What decompositions and training take over the products that `effort` counts. Measured: 1.67 at width 1024 (12
# layers), 1.93 at Llama-3-8B's shape (8 layers), 1.75 there with --rank 1024. Smaller matrices take more.
OVER_PRODUCTS = 1.8


def expected_seconds(job: ExpandJob) -> float | None:
    """Of what a job computes by LESA. None on accelerators, where another law would hold."""
    if platform_of(jnp.zeros(())) != "cpu":
        return None
    work = sum(kind.pages * effort(kind.shape, [request_of(job, kind)]) for kind in job.computed)
    return OVER_PRODUCTS * work / product_rate(SIZE)
