"""Kinds of weight together: which are computed at once, and the memory that this needs."""

import math
from collections.abc import Iterable, Mapping, Sequence

from lesa_jax.checkpoint.format import DTYPES
from lesa_jax.checkpoint.names import Stack
from lesa_jax.families.kinds import WeightKind

# Kinds of equal shape are predicted together while their weights stay below this many bytes of float32; an accelerator
# that has the memory takes more.
BATCH_BYTES = 1 << 28


def batches(kinds: Iterable[WeightKind], batch_bytes: int = BATCH_BYTES) -> list[list[WeightKind]]:
    """Kinds that share shape and layers, and so a compiled program, as many together as fit into `batch_bytes`."""
    groups: dict[tuple[object, ...], list[WeightKind]] = {}
    for kind in dict.fromkeys(kinds):
        layers, dtype = (kind.stack.prefix, kind.stack.starts[0]), kind.stack.spec.dtype
        groups.setdefault((kind.shape, kind.pages, dtype, layers), []).append(kind)
    found = []
    for group in groups.values():
        size = max(1, batch_bytes // group[0].nbytes)
        found += [group[i : i + size] for i in range(0, len(group), size)]
    return found


def computation_memory(kinds: Mapping[WeightKind, Sequence[object]]) -> int:
    """Bytes that computing new matrices needs at its peak besides the program: the largest batch of kinds.

    Weights and V as float32 for every kind of the batch; Gram matrix, eigenvectors and their workspace for one. What
    alignment needs is less: a matrix beside the weights instead of V, and a plan with its copies. The new parts of a
    fused tensor wait for each other.

    Args:
      kinds: with a new tensor for each new layer.
    """

    def batch_memory(batch: Sequence[WeightKind]) -> int:
        out = batch[0].shape[1]
        return len(batch) * 2 * batch[0].nbytes + 5 * 4 * out * out

    return max(map(batch_memory, batches(kinds)), default=0) + max(waiting_memory(kinds).values(), default=0)


def waiting_memory(kinds: Mapping[WeightKind, Sequence[object]]) -> Mapping[Stack, int]:
    """Bytes of the new parts of each fused tensor, in all new layers, in the file's dtype."""
    found: dict[Stack, int] = {}
    for kind, new in kinds.items():
        if kind.part is not None:
            nbytes = math.prod(kind.shape[1:]) * DTYPES[kind.stack.spec.dtype].itemsize
            found[kind.stack] = found.get(kind.stack, 0) + len(new) * nbytes
    return found
