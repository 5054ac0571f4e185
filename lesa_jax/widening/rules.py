"""How a tensor becomes wider, so that the model computes what it did.

Every unit (a channel of the residual stream, a neuron, a head) is there k times, and all copies hold the same number.
The wide stream is [x, x, ..], so that the means of norms stay. Heads stay as wide as they were and become more, those
of queries and of keys in the same order, so that each query has its key and scores stay. What reads copies must count
them once: the weights on the copies of an input sum to the weight that was there.

HyperCloning (arXiv 2409.12903) gives each copy an equal part, LEMON (arXiv 2310.07999) unequal ones. With equal parts
the copies get equal gradients and stay copies for ever; with unequal ones each has a share of its own in all above it.
"""

import zlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Shaped

# By how much LEMON's larger part of a weight exceeds what is even, as a share of the rest: a half becomes 0.55 to 0.75.
LEAST, MOST = 0.1, 0.5

# The parts of a matrix [out, in] for so many copies of its inputs: [copies, out, in], which sum to it.
Sharing = Callable[[Shaped[np.ndarray, "out in"], int, np.random.Generator], Shaped[np.ndarray, "copies out in"]]


def widened(
    weights: Shaped[np.ndarray, "..."], copies: Sequence[int], sharing: Sharing | None, name: str, seed: int
) -> Shaped[np.ndarray, "..."]:
    """A tensor with so many copies of each of its dimensions, one behind the other, in its own dtype.

    Args:
      weights: a vector, a table, or a matrix [out, in].
      copies: for each dimension; 1 where it stays.
      sharing: how the copies of its inputs share a matrix, anew for each copy of its outputs; None: each is whole.
      name: of the tensor, which has random numbers of its own.
      seed: of all random numbers.
    """
    if sharing is None:
        return np.tile(weights, copies)
    (above, below), (outputs, inputs) = copies, weights.shape
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    wide = np.empty((above, outputs, below, inputs), weights.dtype)
    for rows in wide:
        rows[...] = np.moveaxis(sharing(weights, below, random), 0, 1)
    return wide.reshape(above * outputs, below * inputs)


def find_sharing(method: str, noise_db: float | None) -> Sharing:
    """The rule of a `--method`, with noise so many decibels below the weights, or without."""
    if method == "lemon":
        return unequal_parts
    return equal_parts if noise_db is None else partial(noisy_parts, noise_db=noise_db)


def equal_parts(
    weights: Shaped[np.ndarray, "out in"], copies: int, random: np.random.Generator
) -> Shaped[np.ndarray, "copies out in"]:
    """HyperCloning: each copy has one part of as many. Exact where there are 2, 4 or 8, else up to rounding."""
    part = (weights.astype(computed(weights.dtype)) / copies).astype(weights.dtype)
    return np.broadcast_to(part, (copies, *part.shape))


def noisy_parts(
    weights: Shaped[np.ndarray, "out in"], copies: int, random: np.random.Generator, noise_db: float
) -> Shaped[np.ndarray, "copies out in"]:
    """The same with noise, which one copy has and the next one has with the other sign; the last of an odd number of
    copies has none. Exact up to rounding."""
    parts = np.array(equal_parts(weights, copies, random), computed(weights.dtype))
    size = np.sqrt(np.mean(np.square(parts[0], dtype=np.float64))) * 10 ** (-noise_db / 20)
    for first in range(0, copies - 1, 2):
        noise = size.astype(parts.dtype) * random.standard_normal(weights.shape, parts.dtype)
        parts[first] += noise
        parts[first + 1] -= noise
    with np.errstate(over="ignore"):  # found when it is written
        return parts.astype(weights.dtype)


def unequal_parts(
    weights: Shaped[np.ndarray, "out in"], copies: int, random: np.random.Generator
) -> Shaped[np.ndarray, "copies out in"]:
    """LEMON: each copy has a random part, one for each input, and the parts sum to the weights to the bit."""
    parts = np.stack(split(weights, copies, random))
    order = random.permuted(np.tile(np.arange(copies)[:, None], (1, weights.shape[1])), axis=0)
    return np.take_along_axis(parts, order[:, None, :], axis=0)


def split(
    weights: Shaped[np.ndarray, "out in"], copies: int, random: np.random.Generator
) -> list[Shaped[np.ndarray, "out in"]]:
    """So many parts, the larger ones first.

    They are cut in two again and again, the larger part first, of half of the weight or more: what is left of it is
    then a number of the same dtype, so that the difference is exact (Sterbenz), in half precision too.
    """
    if copies == 1:
        return [weights]
    most = (copies + 1) // 2
    even = most / copies
    shares = even + (1 - even) * random.uniform(LEAST, MOST, weights.shape[1])
    dtype = computed(weights.dtype)
    larger = (weights.astype(dtype) * shares.astype(dtype)).astype(weights.dtype)
    return split(larger, most, random) + split(weights - larger, copies - most, random)


def computed(dtype: np.dtype) -> np.dtype:
    """What numbers of a dtype are computed in."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)
