"""Kinds of weight together: which are computed at once."""

from collections.abc import Iterable

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
