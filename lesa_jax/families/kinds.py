"""Kinds of weight: the tensors that go by one name in all layers, and their matrices, read for all layers at once."""

import math
from collections.abc import Sequence
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
    def tensor_bytes(self) -> int:
        """Bytes of one layer's, as they are in a tensor of the file."""
        return self.pages * math.prod(self.shape[1:]) * DTYPES[self.stack.spec.dtype].itemsize

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


def read_matrices(checkpoint: Checkpoint, kind: WeightKind, page: int) -> np.ndarray:
    """One matrix, or vector, of each layer, [layers, out, in] or [layers, n]."""
    stacked = np.empty(kind.shape, DTYPES[kind.stack.spec.dtype])
    for layer, matrix in enumerate(stacked):
        read_matrix_into(checkpoint, kind, page, layer, matrix)
    return stacked


def read_matrix(checkpoint: Checkpoint, kind: WeightKind, page: int, layer: int) -> np.ndarray:
    """One layer's matrix [out, in], or vector [n]; layers are counted from the first one that has the kind."""
    matrix = np.empty(kind.shape[1:], DTYPES[kind.stack.spec.dtype])
    read_matrix_into(checkpoint, kind, page, layer, matrix)
    return matrix


def read_matrix_into(checkpoint: Checkpoint, kind: WeightKind, page: int, layer: int, matrix: np.ndarray) -> None:
    """`read_matrix` into a given one."""
    packed, name = len(kind.stack.spec.shape) == 3, kind.tensors[layer]
    order = kind.order[layer] if kind.order is not None and not kind.inner else None  # experts by roles
    if packed:
        page = page if order is None else order[page]
        if kind.transposed:
            matrix[...] = read(checkpoint, name, page, 1)[0].T
        else:
            read_into(checkpoint, name, matrix[None], page)
    elif order is not None or kind.transposed or (kind.part is not None and kind.part.groups > 1):
        tensor = read(checkpoint, name)
        tensor = tensor if order is None else tensor[list(order)]  # a router's rows
        tensor = tensor.T if kind.transposed else tensor
        matrix[...] = tensor if kind.part is None else kind.part.of(tensor).reshape(matrix.shape)
    else:
        read_into(checkpoint, name, matrix, 0 if kind.part is None else kind.part.start)


def byte_starts(kind: WeightKind, page: int, layer: int) -> list[int]:
    """Where in a tensor of the kind the pieces of one matrix begin, as it lies in the file, all of one length.

    Args:
      kind: of the matrix.
      page: of packed experts, by roles if the kind's experts have an order.
      layer: in whose order they are; counted as by `read_matrix`.
    """
    shape, itemsize = kind.stack.spec.shape, DTYPES[kind.stack.spec.dtype].itemsize
    if len(shape) == 3:
        order = kind.order[layer] if kind.order is not None and not kind.inner else range(shape[0])
        return [order[page] * math.prod(shape[1:]) * itemsize]
    if kind.part is None:
        return [0]
    if kind.transposed:  # the rows are columns there
        return [itemsize * (line * shape[1] + row) for line in range(shape[0]) for row in kind.part.firsts(shape[1])]
    return [itemsize * math.prod(shape[1:]) * row for row in kind.part.firsts(shape[0])]
