"""The safetensors format: file names, dtypes, and what is known of a tensor without its numbers."""

from collections.abc import Mapping
from typing import NamedTuple

import ml_dtypes
import numpy as np

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

# The dtypes of floating-point weights that can be trained and predicted, and the others that may lie beside them.
FLOATS: Mapping[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
DTYPES: Mapping[str, np.dtype] = {
    **FLOATS,
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
QUANTISED_PARTS = {"qweight", "qzeros", "g_idx", "absmax", "quant_map", "weight_scale_inv"}

SHARD_SIZE = 5_000_000_000  # bytes, as transformers writes


class TensorSpec(NamedTuple):
    """What the tensors of one stack have in common: shape and safetensors dtype (`"BF16"`, `"F32"`, ...)."""

    shape: tuple[int, ...]
    dtype: str
