"""Which device holds what: one mesh of three axes, one table of rules.

data: copies of the model, each with its share of the batch. fsdp: shares of the batch AND of every weight, which is
gathered when its layer's turn comes. tensor: shares of heads, feed-forward and vocabulary (Megatron, arXiv 1909.08053).
"""

import re
from collections.abc import Mapping, Sequence

from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.base.errors import InputError
from lesa_jax.models.config import ModelConfig
from lesa_jax.parallel.mesh import BATCH
from lesa_jax.training.parameters import Leaf

# By the end of a tensor's name, its axes. What matches nothing (norms, biases of o_proj and down_proj) is everywhere.
RULES: Sequence[tuple[str, tuple[str | None, ...]]] = (
    (r"(q|k|v|gate|up)_proj\.weight$", ("tensor", "fsdp")),
    (r"(o|down)_proj\.weight$", ("fsdp", "tensor")),
    (r"(q|k|v|gate|up)_proj\.bias$", ("tensor",)),
    (r"(embed_tokens|lm_head)\.weight$", ("tensor", "fsdp")),
)


def check_mesh(sizes: Mapping[str, int], config: ModelConfig, sequences: int) -> None:
    """Refuses a mesh that does not divide the model's heads and widths, or the batch.

    Args:
      sizes: of the mesh's axes.
      config: of the model.
      sequences: of one forward pass: the batch, or its share of an accumulation.
    """
    tensor, fsdp = sizes["tensor"], sizes["fsdp"]
    divided = {
        "num_attention_heads": (config.num_heads, "tensor", tensor),
        "num_key_value_heads": (config.num_kv_heads, "tensor", tensor),
        "intermediate_size": (config.intermediate_size, "tensor", tensor),
        "hidden_size": (config.hidden_size, "fsdp", fsdp),
    }
    for name, (value, axis, size) in divided.items():
        if value % size:
            raise InputError(f"--mesh: {axis}={size} does not divide the model's {name} {value}; choose a divisor")
    share = sizes["data"] * fsdp
    if sequences % share:
        raise InputError(
            f"--batch-size / --accumulate is {sequences} sequences, which data x fsdp = {share} does not divide; "
            f"use a multiple of {share}"
        )


def leaf_spec(leaf: Leaf, mesh: Mesh) -> P:
    """The axes of one leaf; an axis that does not divide its dimension (an odd vocabulary) is left out."""
    for pattern, axes in RULES:
        if re.search(pattern, leaf.names[0]):
            shape = leaf.shape[1:] if leaf.stacked else leaf.shape
            fitting = [
                axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape, strict=True)
            ]
            return P(None, *fitting) if leaf.stacked else P(*fitting)
    return P()


def leaf_shardings(leaves: Sequence[Leaf], mesh: Mesh) -> dict[tuple[str, ...], NamedSharding]:
    """Where each leaf lies, by its path."""
    return {leaf.path: NamedSharding(mesh, leaf_spec(leaf, mesh)) for leaf in leaves}


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """[sequences, tokens]: sequences over data and fsdp."""
    return NamedSharding(mesh, P(BATCH))
