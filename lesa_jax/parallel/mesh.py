"""The devices as a mesh of four axes.

data: copies of the model, each with its share of the batch. fsdp: shares of the batch AND of every weight, which is
gathered when its layer's turn comes. expert: shares of the batch and of the experts, which see each other's tokens.
tensor: shares of heads, feed-forward and vocabulary (Megatron, arXiv 1909.08053).
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.base.errors import InputError

AXES = ("data", "fsdp", "expert", "tensor")
BATCH = ("data", "fsdp", "expert")  # the axes that share the sequences of a batch
# Which axis shares a dimension of a weight, by what the dimension is about (`models.shapes.Tensor`).
AXIS_RULES: Mapping[str, str] = {
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "ffn": "tensor",
    "embed": "fsdp",
    "experts": "expert",
}


def sharing_axes(dimensions: Sequence[str | None]) -> tuple[str | None, ...]:
    """The axes of the mesh that share dimensions which are about these things."""
    return tuple(None if dimension is None else AXIS_RULES[dimension] for dimension in dimensions)


def parse_mesh(text: str, devices: int) -> dict[str, int]:
    """`data=1,fsdp=-1,tensor=1` as sizes; -1 takes the devices that are left, a missing axis is 1.

    Raises:
      InputError: an unknown axis, or sizes whose product is not the number of devices.
    """
    sizes: dict[str, int] = dict.fromkeys(AXES, 1)
    for word in text.split(","):
        axis, _, size = word.strip().partition("=")
        if axis not in AXES or not re.fullmatch(r"-1|[1-9]\d*", size):
            raise InputError(f"--mesh {text}: {word!r} is not AXIS=SIZE with an axis of {', '.join(AXES)}")
        sizes[axis] = int(size)
    free = [axis for axis, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(free) > 1:
        raise InputError(f"--mesh {text}: only one axis can be -1")
    if free and devices % fixed == 0:
        sizes[free[0]] = devices // fixed
    if math.prod(sizes.values()) != devices:
        raise InputError(f"--mesh {text}: does not divide the {devices} devices of this run; use fsdp=-1 for the rest")
    return sizes


def make_mesh(sizes: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of these devices; by default all of all processes."""
    chosen = jax.devices() if devices is None else devices
    return Mesh(np.asarray(chosen).reshape([sizes[axis] for axis in AXES]), AXES)


def whole_mesh(text: str) -> Mesh | None:
    """The mesh of all devices that `parse_mesh` reads; None where there is but one device."""
    sizes = parse_mesh(text, jax.device_count())
    return None if jax.device_count() == 1 else make_mesh(sizes)


def mesh_of(x: Any) -> AbstractMesh | None:
    """The mesh of several devices that an array lies on, which a traced array knows, too; None on one device."""
    mesh = jax.typeof(x).sharding.mesh
    return None if mesh.empty or mesh.size == 1 else mesh


def pinned(x: Any, *axes: str | tuple[str, ...] | None) -> Any:
    """The array with its dimensions shared by these axes of its mesh, and its gradient likewise.

    Left to itself XLA may carry an array on as it came: hidden states shared along their width by all devices, each
    with the tokens of all, because the embedding was. Axes that do not divide a dimension do not share it.
    """
    mesh = mesh_of(x)
    if mesh is None:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(*dividing(axes, x.shape, mesh.shape))))


def by_rows(x: Any) -> Any:
    """`pinned`, an array whose first dimension are sequences, each of them whole on its device."""
    return pinned(x, BATCH)


def row_shares(sizes: Mapping[str, int]) -> int:
    """Into how many shares the sequences of a batch are cut."""
    return math.prod(sizes[axis] for axis in BATCH)


def dividing(
    axes: Sequence[str | tuple[str, ...] | None], shape: Sequence[int], sizes: Mapping[str, int]
) -> list[str | tuple[str, ...] | None]:
    """The axes that divide the dimensions they share; None in the place of others."""
    found = []
    for axis, dimension in zip(axes, shape, strict=False):
        names = axis if isinstance(axis, tuple) else (axis,)
        share = math.prod(sizes[name] for name in names if name is not None)
        found.append(axis if dimension % share == 0 else None)
    return found


def platform_of(x: Any) -> str:
    """ "cpu", "gpu" or "tpu": where the array is computed. A traced array knows its mesh, and that its devices, which
    need not be this machine's; one without a mesh is computed where JAX computes by default."""
    device = jax.typeof(x).sharding.mesh.abstract_device
    return jax.default_backend() if device is None else device.platform
