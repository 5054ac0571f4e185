"""The measured rate of products."""

import pytest

from lesa_jax.parallel.rates import product_rate


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_rate_is_one_of_this_world(dtype):
    assert 1e8 < product_rate(256, dtype) < 1e16
