"""Kinds of weight: the tensors that go by one name in all layers, and their matrices, read for all layers at once."""

import ctypes
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from lesa_jax.checkpoint.format import DTYPES
from lesa_jax.checkpoint.names import Stack
from lesa_jax.checkpoint.reader import Checkpoint, read, read_into
from lesa_jax.families.fused import Rows, fused_rows
from lesa_jax.families.neurons import Side
from lesa_jax.families.roles import is_transposed


@dataclass(frozen=True)
class WeightKind:
    """The tensors that go by one name in all layers of a run, such as `mlp.up_proj`, or those of one expert.

    Of tensors that are several matrices in one, such as `self_attn.qkv_proj`, each part is a kind of its own.

    Attributes:
      stack: the tensors; its first axis counts layers.
      inner: the numbers after the layer's, such as the expert's.
      transposed: whether they are matrices that lie as [in, out] in the file.
      part: which rows of fused tensors these are; None: all of them.
      order: in each layer the number of the expert that has each role (`growth.experts`): `inner` is a role, and of
        packed experts and of routers pages and rows go by roles; None: all go by their numbers.
      beside: kinds whose rows are this one's "rows" or "columns" (`families.neurons`).
    """

    stack: Stack
    inner: tuple[int, ...] = ()
    transposed: bool = False
    part: Rows | None = None
    order: tuple[tuple[int, ...], ...] | None = None
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
        first, layers = self.stack.starts[0], range(self.stack.sizes[0])
        if self.order is None:
            return [self.stack.name(first + layer, *self.inner) for layer in layers]
        return [self.stack.name(first + layer, *(self.order[layer][role] for role in self.inner)) for layer in layers]

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


def kind_name(stack: Stack, name: str | None = None) -> str:
    """How reports call the tensors of a stack, those of an encoder by its name, as they differ from its decoder's.

    Args:
      name: of another one in the same layers, behind the layer's number.
    """
    encoder = "encoder." if "encoder" in stack.prefix.split(".") else ""
    return encoder + (name or stack.template.removeprefix(stack.prefix + "*.")).removesuffix(".weight")


def parts_of(checkpoint: Checkpoint, stack: Stack) -> Sequence[Rows]:
    """Which rows of fused matrices, or of their biases, are which part; none of others, packed experts among them."""
    if len(stack.spec.shape) > 2:
        return ()
    return fused_rows(checkpoint.config, stack.template, row_count(checkpoint, stack))


def row_count(checkpoint: Checkpoint, stack: Stack) -> int:
    """Rows of a matrix, however it lies in the file, or entries of a vector."""
    return stack.spec.shape[1 if is_transposed(checkpoint, stack) else 0]


def read_matrices(checkpoint: Checkpoint, kind: WeightKind, page: int) -> tuple[np.ndarray, float]:
    """One matrix, or vector, of each layer, [layers, out, in] or [layers, n], and their mean norm."""
    return_memory()
    stacked = np.empty(kind.shape, DTYPES[kind.stack.spec.dtype])
    packed = len(kind.stack.spec.shape) == 3
    lie_apart = kind.part is not None and kind.part.groups > 1
    first = page if kind.part is None else kind.part.start
    for layer, (matrix, name) in enumerate(zip(stacked, kind.tensors, strict=True)):
        if kind.order is not None and not kind.inner:  # packed experts or a router's rows, by roles
            tensor = read(checkpoint, name)[list(kind.order[layer])]
            matrix[...] = tensor[page] if packed else tensor
        elif kind.transposed or lie_apart:
            tensor = read(checkpoint, name)
            rows = tensor.T if kind.transposed else tensor
            matrix[...] = rows if kind.part is None else kind.part.of(rows).reshape(matrix.shape)
        else:
            read_into(checkpoint, name, matrix[None] if packed else matrix, first)
    norms = [np.linalg.norm(matrix.astype(np.float32, copy=False)) for matrix in stacked]
    return stacked, float(np.mean(norms))


def return_memory() -> None:
    """Gives freed memory back to the system, before much is asked for again.

    The C library keeps what compilation and the kind before have freed, in pieces that the next kind does not fit into:
    0.13 GB at width 1024 and 12 layers.
    """
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
