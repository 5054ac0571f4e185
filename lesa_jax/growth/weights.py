"""Kinds of weight: the unit in which an expansion reads, computes and writes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lesa_jax.checkpoint.format import DTYPES
from lesa_jax.checkpoint.names import Stack
from lesa_jax.families.fused import Rows
from lesa_jax.families.neurons import Side

# Kinds of equal shape are predicted together while their weights stay below this many bytes of float32; an accelerator
# that has the memory takes more.
BATCH_BYTES = 1 << 28


@dataclass(frozen=True)
class WeightKind:
    """The tensors that go by one name in all layers of a run, such as `mlp.up_proj`, or those of one expert.

    Of tensors that are several matrices in one, such as `self_attn.qkv_proj`, each part is a kind of its own.

    Attributes:
      stack: the tensors; its first axis counts layers.
      inner: the numbers after the layer's, such as the expert's.
      transposed: whether they are matrices that lie as [in, out] in the file.
      part: which rows of fused tensors these are; None: all of them.
      beside: kinds whose rows are this one's "rows" or "columns" (`families.neurons`).
    """

    stack: Stack
    inner: tuple[int, ...] = ()
    transposed: bool = False
    part: Rows | None = None
    beside: tuple[tuple[Side, "WeightKind"], ...] = ()

    @property
    def name(self) -> str:
        """What reports call it: `model.layers.*.mlp.up_proj.weight` -> `mlp.up_proj`, experts alike.

        A part has its name behind that of the tensor: `self_attn.qkv_proj[query]`.
        """
        return kind_name(self.stack) + ("" if self.part is None else f"[{self.part.name}]")

    @property
    def tensors(self) -> list[str]:
        """The original's tensors, layer by layer."""
        first = self.stack.starts[0]
        return [self.stack.name(first + layer, *self.inner) for layer in range(self.stack.sizes[0])]

    @property
    def shape(self) -> tuple[int, ...]:
        """[layers, out, in] of the matrices; [layers, n] of vectors."""
        shape = self.stack.spec.shape[-2:]
        rows, *rest = reversed(shape) if self.transposed else shape
        return (self.stack.sizes[0], rows if self.part is None else self.part.count, *rest)

    @property
    def pages(self) -> int:
        """Matrices in one tensor: 1, or the number of packed experts."""
        shape = self.stack.spec.shape
        return shape[0] if len(shape) == 3 else 1

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices of all layers as float32."""
        return 4 * self.pages * math.prod(self.shape)


def kind_name(stack: Stack) -> str:
    """How reports call the tensors of a stack."""
    return stack.template.removeprefix(stack.prefix + "*.").removesuffix(".weight")


def batches(kinds: Iterable[WeightKind], batch_bytes: int = BATCH_BYTES) -> list[list[WeightKind]]:
    """Kinds that share shape and layers, and so a compiled program, as many together as fit into `batch_bytes`."""
    groups: dict[tuple[object, ...], list[WeightKind]] = {}
    for kind in dict.fromkeys(kinds):
        layers, dtype = kind.stack.starts[0], kind.stack.spec.dtype
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
