"""Copies of layers with other sizes than their source's.

A copy becomes wider as by HyperCloning (arXiv 2409.12903): some of its neurons, or heads, are there once
more, and what reads them shares its weights, so that the layer computes what its source computes. Where it becomes
narrower, the units stay that write most, and it computes something like it.
"""

from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
from jaxtyping import Int, Shaped

from lesa_jax.checkpoint.format import TensorSpec
from lesa_jax.families.model import ModelConfig, Sizes


@dataclass(frozen=True)
class Resize:
    """How a tensor of a layer becomes one of a layer with more or fewer units: neurons, or heads with one key each.

    Attributes:
      heights: rows of one unit, or its columns where these are `shared`, in each of the parts that the tensor consists
        of; in a part unit follows on unit.
      before, after: numbers of units.
      writer: name of the source's matrix that reads these units; its columns tell how much each writes.
      shared: whether the tensor is that one, whose weights on copies are parts of what they were.
    """

    heights: tuple[int, ...]
    before: int
    after: int
    writer: str
    shared: bool = False

    def spec(self, before: TensorSpec) -> TensorSpec:
        """Shape and dtype of what it becomes."""
        size = sum(self.heights) * self.after
        return before._replace(shape=(before.shape[0], size) if self.shared else (size, *before.shape[1:]))

    def of(
        self, tensor: Shaped[np.ndarray, "..."], writer: Shaped[np.ndarray, "hidden columns"]
    ) -> Shaped[np.ndarray, "..."]:
        """What a tensor becomes."""
        units = self.units(writer)
        axis = 1 if self.shared else 0
        bounds = list(accumulate(height * self.before for height in self.heights))[:-1]
        parts = [
            rows_of(part, height, units, axis)
            for part, height in zip(np.split(tensor, bounds, axis), self.heights, strict=True)
        ]
        whole = np.concatenate(parts, axis)
        if not self.shared:
            return whole
        copies = np.bincount(units, minlength=self.before)[units]
        return whole / np.repeat(copies, self.heights[0])

    def units(self, writer: Shaped[np.ndarray, "hidden columns"]) -> Int[np.ndarray, " after"]:
        """Which of the source's units each one is."""
        if self.after >= self.before:
            return np.arange(self.after) % self.before
        squares = np.square(writer.astype(np.float64)).reshape(len(writer), self.before, -1)
        sizes = squares.sum(axis=(0, 2))
        return np.sort(np.argsort(-sizes, kind="stable")[: self.after])


def rows_of(
    part: Shaped[np.ndarray, "..."], height: int, units: Int[np.ndarray, " after"], axis: int
) -> Shaped[np.ndarray, "..."]:
    """The rows, or columns, of these units."""
    return np.take(part, (units[:, None] * height + np.arange(height)).ravel(), axis)


def resizes(model: ModelConfig, layer: int, after: Sizes) -> dict[str, Resize]:
    """How the tensors of a layer become those of one of other sizes, by their names inside the layer; tensors that
    stay as they are are left out."""
    names, before = model.names, model.sizes_of(layer)
    queries = before.num_heads // before.num_kv_heads * model.head_dim
    writers = [f"{names.layers}.{layer}.{name}.weight" for name in (names.down, names.attention_output)]
    neurons = partial(Resize, before=before.intermediate_size, after=after.intermediate_size, writer=writers[0])
    heads = partial(Resize, before=before.num_kv_heads, after=after.num_kv_heads, writer=writers[1])
    found = {
        names.gate_up: neurons((1, 1)),
        names.up: neurons((1,)),
        names.down: neurons((1,), shared=True),
        names.qkv: heads((queries, model.head_dim, model.head_dim)),
        names.attention_output: heads((queries,), shared=True),
    }
    if model.qk_norm == "all":
        found |= {names.query_norm: heads((queries,)), names.key_norm: heads((model.head_dim,))}
    return {f"{name}.weight": own for name, own in found.items() if name is not None and own.before != own.after}
