"""Token stores in memory."""

import numpy as np

from lesa_jax.data.store import TokenStore


def store_of(lengths: list[int], mask: np.ndarray | None = None) -> TokenStore:
    """Documents of these lengths; every token is its own place in the store plus 1, so that 0 is padding."""
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    return TokenStore(np.arange(1, offsets[-1] + 1, dtype=np.uint16), offsets, mask, 0, 0, "digest")
