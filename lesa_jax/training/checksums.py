"""Two numbers for every array of a saved state, so that a byte that changed on the disk is noticed.

They are computed on the devices, in one pass at the speed of their memory, and do not depend on how an array is shared.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, UInt32

UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # by bytes of an element
GOLDEN, MIX = np.uint32(0x9E3779B9), np.uint32(0x85EBCA6B)  # of hash functions: odd, and their bits look random


def checksums(tree: Any, mesh: Mesh) -> dict[str, list[int]]:
    """Of every leaf, by its place in the tree, on all processes alike."""
    sums = jax.jit(lambda leaves: [checksum(leaf) for leaf in leaves], out_shardings=NamedSharding(mesh, P()))
    places, leaves = zip(*jax.tree_util.tree_leaves_with_path(tree), strict=True)
    found = jax.device_get(sums(leaves))
    return {jax.tree_util.keystr(place): pair.tolist() for place, pair in zip(places, found, strict=True)}


def checksum(x: Array) -> UInt32[Array, "2"]:
    """Sums modulo 2^32 of the elements' bits, so that the order of adding does not count, but places do.

    In the first an element is multiplied by an odd number of its own: no change of a single element goes unnoticed. In
    the second its bits are mixed with its place: changes that cancel each other in one do not in the other.
    """
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    bits = jax.lax.bitcast_convert_type(x, UNSIGNED[x.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    mixed = (bits ^ (place * GOLDEN)) * MIX
    mixed = (mixed ^ (mixed >> 15)) * GOLDEN
    return jnp.stack([jnp.sum(part, dtype=jnp.uint32) for part in (bits * (2 * place + 1), mixed ^ (mixed >> 13))])
