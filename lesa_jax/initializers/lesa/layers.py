"""Matrices of all layers of a kind that need not be in memory, nor on the device: layers as they are read, and the
blocks that are made of them."""

import functools
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lesa_jax.base.background import second_thread


@runtime_checkable
class Layers(Protocol):
    """Matrices [out, in] that are asked for one by one: an array, or something that reads them."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, layer: int, /) -> Any: ...


@runtime_checkable
class Stored(Protocol):
    """Blocks [rows, in] of all layers that somebody else keeps, as on a disk."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, layer: int, /) -> np.ndarray: ...
    def __setitem__(self, layer: int, block: np.ndarray, /) -> None: ...
    def take(self, rows: Int[np.ndarray, "*places"], out: Float[np.ndarray, "*places in"]) -> None:
        """Reads rows, counted over all layers, into `out`."""
        ...


Blocks: TypeAlias = Array | np.ndarray | Stored  # [layers, rows, in]: on the device, in the host's memory, elsewhere


@runtime_checkable
class Room(Protocol):
    """Somewhere on the host."""

    def rows(self, shape: tuple[int, int, int]) -> np.ndarray | Stored:
        """Blocks to be filled one by one."""
        ...


class Waiting:
    """A matrix that is needed again, and kept meanwhile where there is room; without any, on the device."""

    def __init__(self, matrix: Float[Array, "n m"], room: Room | None):
        self.kept: Array | np.ndarray | Stored = matrix
        if room is not None:
            self.kept = room.rows((1, matrix.shape[0], matrix.shape[1]))
            self.kept[0] = np.asarray(matrix)

    def take(self) -> Float[Array, "n m"]:
        """It, on the device."""
        return self.kept if isinstance(self.kept, jax.Array) else jnp.array(self.kept[0])


def each(w: Layers) -> Iterator[Array]:
    """The layers on the device, in order; while one is at work, the next is read."""
    with second_thread() as reader:

        def read(layer: int) -> Array:
            return jax.device_put(w[layer])

        coming = reader.submit(read, 0)
        for layer in range(w.shape[0]):
            here = coming.result()
            if layer + 1 < w.shape[0]:
                coming = reader.submit(read, layer + 1)
            yield here
            del here  # before the next but one is read


def store(blocks: Blocks, layer: int, block: Array) -> Blocks:
    """The blocks with one of them replaced, in place."""
    if isinstance(blocks, jax.Array):
        return jax.block_until_ready(_set(blocks, layer, block))  # so that no layer is read before it is due
    blocks[layer] = np.asarray(block)
    return blocks


@functools.partial(jax.jit, donate_argnums=0)
def _set(blocks, layer, block):
    return blocks.at[layer].set(block)


def take(blocks: np.ndarray | Stored, rows: Int[np.ndarray, "*places"], out: Float[np.ndarray, "*places in"]) -> None:
    """Rows of the blocks on the host, counted over all layers, into `out`."""
    if isinstance(blocks, np.ndarray):
        np.take(blocks.reshape(-1, blocks.shape[-1]), rows, axis=0, out=out, mode="clip")  # "raise" would copy twice
    else:
        blocks.take(rows, out)
