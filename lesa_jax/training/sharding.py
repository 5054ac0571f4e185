"""Which device holds what: the axes of each tensor (`models.shapes`) by the rules of the mesh (`parallel.mesh`)."""

import math
from collections.abc import Mapping, Sequence

from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.base.errors import InputError
from lesa_jax.families.model import ModelConfig
from lesa_jax.parallel.mesh import AXIS_RULES, BATCH
from lesa_jax.training.parameters import Leaf


def check_mesh(sizes: Mapping[str, int], config: ModelConfig, sequences: int) -> None:
    """Refuses a mesh that does not divide the model's heads and widths, or the batch.

    Args:
      sizes: of the mesh's axes.
      config: of the model.
      sequences: of one forward pass: the batch, or its share of an accumulation.
    """
    divided = {
        "num_attention_heads": (config.num_heads, "heads"),
        "num_key_value_heads": (config.num_kv_heads, "kv_heads"),
        "intermediate_size": (config.intermediate_size, "ffn"),
        "hidden_size": (config.hidden_size, "embed"),
    }
    for name, (value, dimension) in divided.items():
        axis = AXIS_RULES[dimension]
        if value % sizes[axis]:
            raise InputError(
                f"--mesh: {axis}={sizes[axis]} does not divide the model's {name} {value}; choose a divisor"
            )
    share = math.prod(sizes[axis] for axis in BATCH)
    if sequences % share:
        raise InputError(
            f"--batch-size / --accumulate is {sequences} sequences, which data x fsdp = {share} does not divide; "
            f"use a multiple of {share}"
        )


def leaf_spec(leaf: Leaf, sizes: Mapping[str, int]) -> P:
    """The axes of the mesh that share one leaf; one that does not divide its dimension (an odd vocabulary) does not."""
    axes = [None if axis is None else AXIS_RULES[axis] for axis in leaf.tensor.axes]
    if not any(axes):
        return P()
    shared = [
        axis if axis and size % sizes[axis] == 0 else None for axis, size in zip(axes, leaf.tensor.shape, strict=True)
    ]
    return P(None, *shared) if leaf.stacked else P(*shared)


def leaf_shardings(leaves: Sequence[Leaf], mesh: Mesh) -> dict[tuple[str, ...], NamedSharding]:
    """Where each leaf lies, by its path."""
    return {leaf.path: NamedSharding(mesh, leaf_spec(leaf, mesh.shape)) for leaf in leaves}
