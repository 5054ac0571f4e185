"""What is written of a trained tensor."""

import ml_dtypes
import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.training.export import cast


def test_a_tensor_is_cast_as_numpy_casts_it():
    tensor = np.array([1.0, -2.5, 1e-3], np.float32)
    for dtype, kind in {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32}.items():
        np.testing.assert_array_equal(cast("x", tensor, dtype), tensor.astype(kind))


@pytest.mark.parametrize(("dtype", "number"), [("F16", 65520.0), ("F16", -1e5), ("BF16", 3.4e38), ("F32", np.inf)])
def test_a_number_that_the_dtype_does_not_have_is_refused_by_the_tensors_name(dtype, number):
    with pytest.raises(InputError, match=f"^up.weight: the largest trained number is .* which {dtype} does not have"):
        cast("up.weight", np.array([1.0, number], np.float32), dtype)
