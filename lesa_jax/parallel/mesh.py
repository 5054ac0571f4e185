"""The devices as a mesh of four axes.

data: copies of the model, each with its share of the batch. fsdp: shares of the batch AND of every weight, which is
gathered when its layer's turn comes. expert: shares of the batch and of the experts, which see each other's tokens.
tensor: shares of heads, feed-forward and vocabulary (Megatron, arXiv 1909.08053).
"""

import math
import re
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

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


def make_mesh(sizes: Mapping[str, int]) -> Mesh:
    """A mesh of all devices of all processes."""
    return Mesh(np.asarray(jax.devices()).reshape([sizes[axis] for axis in AXES]), AXES)
