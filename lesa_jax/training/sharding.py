"""Which device holds what: the axes of each tensor (`models.shapes`) by the rules of the mesh (`parallel.mesh`)."""

from collections.abc import Mapping, Sequence

from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.base.errors import InputError
from lesa_jax.families.model import ModelConfig
from lesa_jax.parallel.mesh import AXIS_RULES, dividing, row_shares, sharing_axes
from lesa_jax.training.parameters import Leaf


def check_mesh(sizes: Mapping[str, int], config: ModelConfig, sequences: int) -> None:
    """Refuses a mesh that does not divide the model's heads and widths, or the batch.

    Args:
      sizes: of the mesh's axes.
      config: of the model.
      sequences: of one forward pass: the batch, or its share of an accumulation.
    """
    divided = [
        part
        for stack in config.stacks
        for sizes_of_layer in sorted(set(stack.sizes)) or [stack.sizes_of(0)]
        for part in (
            ("num_attention_heads", sizes_of_layer.num_heads, "heads"),
            ("num_key_value_heads", sizes_of_layer.num_kv_heads, "kv_heads"),
            ("intermediate_size", sizes_of_layer.intermediate_size, "ffn"),
            ("hidden_size", stack.hidden_size, "embed"),
        )
    ]
    if config.experts is not None:
        divided.append(("experts' width", config.experts.width, "ffn"))
        divided.append(("number of experts", config.experts.number, "experts"))
    elif sizes["expert"] > 1:
        raise InputError(f"--mesh: expert={sizes['expert']}, but the model has no experts; use fsdp={sizes['expert']}")
    for name, value, dimension in divided:
        axis = AXIS_RULES[dimension]
        if value % sizes[axis]:
            raise InputError(
                f"--mesh: {axis}={sizes[axis]} does not divide the model's {name} {value}; choose a divisor"
            )
    share = row_shares(sizes)
    if sequences % share:
        raise InputError(
            f"--batch-size / --accumulate is {sequences} sequences, which data x fsdp x expert = {share} does not "
            f"divide; use a multiple of {share}"
        )


def leaf_spec(leaf: Leaf, sizes: Mapping[str, int]) -> P:
    """The axes of the mesh that share one leaf; one that does not divide its dimension (an odd vocabulary) does not."""
    tensor = leaf.tensor
    axes = sharing_axes(tensor.array_axes)
    if not any(axes):
        return P()
    shared = dividing(axes, tensor.array_shape, sizes)
    return P(None, *shared) if leaf.stacked else P(*shared)


def leaf_shardings(leaves: Sequence[Leaf], mesh: Mesh) -> dict[tuple[str, ...], NamedSharding]:
    """Where each leaf lies, by its path."""
    return {leaf.path: NamedSharding(mesh, leaf_spec(leaf, mesh.shape)) for leaf in leaves}
