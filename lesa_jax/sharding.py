"""Which device holds what: one mesh of three axes, one table of rules.

data: copies of the model, each with its share of the batch. fsdp: shares of the batch AND of every weight, which is
gathered when its layer's turn comes. tensor: shares of heads, feed-forward and vocabulary (Megatron, arXiv 1909.08053).
"""

import math
import os
import re
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.errors import InputError
from lesa_jax.models.config import ModelConfig
from lesa_jax.parameters import Leaf

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")  # the axes that share the sequences of a batch
# By the end of a tensor's name, its axes. What matches nothing (norms, biases of o_proj and down_proj) is everywhere.
RULES: Sequence[tuple[str, tuple[str | None, ...]]] = (
    (r"(q|k|v|gate|up)_proj\.weight$", ("tensor", "fsdp")),
    (r"(o|down)_proj\.weight$", ("fsdp", "tensor")),
    (r"(q|k|v|gate|up)_proj\.bias$", ("tensor",)),
    (r"(embed_tokens|lm_head)\.weight$", ("tensor", "fsdp")),
)


COORDINATES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join_processes() -> None:
    """Makes this process one of several: as the environment says, or as Cloud TPU or Slurm does.

    Raises:
      InputError: the environment says half of it, or nobody answers.
    """
    given = [os.environ.get(name) for name in COORDINATES]
    if any(given) and not all(given):
        missing = next(name for name, value in zip(COORDINATES, given, strict=True) if not value)
        raise InputError(f"--distributed: {missing} is not set; set all of {', '.join(COORDINATES)}, or none")
    address, count, number = given
    # JAX's preemption service would take SIGTERM for itself. It counts steps from 0 when the signal comes before the
    # first one, and Orbax tells it an older step whenever a save ends: either way the step on which it settles may be
    # past, and then nobody stops, or not everybody. `stop.stop_signal` does without it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if address and count and number:
            jax.distributed.initialize(address, int(count), int(number))
        else:
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"--distributed: cannot join the other processes ({reason}); set {COORDINATES[0]} etc."
        ) from None


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
