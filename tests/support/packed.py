"""Packed batches, for tests of training steps."""

import jax.numpy as jnp
import numpy as np

from lesa_jax.training.step import Batch


def packed(vocab: int, batch: int = 2, tokens: int = 24, parts: int = 1) -> Batch:
    """Rows of two documents each and some padding."""
    rng = np.random.default_rng(0)
    shape = (parts, batch, tokens)
    ids = rng.integers(0, vocab, (*shape[:2], tokens + 1)).astype(np.int32)
    documents = np.ones(shape, np.int32)
    documents[..., 10:] = 2
    documents[..., 21:] = 0
    positions = np.where(np.arange(tokens) < 10, np.arange(tokens), np.arange(tokens) - 10)
    weights = np.ones(shape, np.float32)
    weights[..., [9, 20, 21, 22, 23]] = 0
    fields = ids[..., :-1], ids[..., 1:], documents, np.broadcast_to(positions.astype(np.int32), shape), weights
    return Batch(*map(jnp.asarray, fields))
