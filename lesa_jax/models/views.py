"""What one layer does otherwise than another: how far back it sees, by which rotation, how much of what it reads
counts, and whether it has experts.

All else is in its weights. Layers of a scan run one program. What they have in common is a property of it; what differs
is an array with an entry for each, that the scan hands out. A run of layers has experts in all of them or in none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lesa_jax.families.model import ModelConfig

# Written for a layer without a window: longer than any sequence, and safe to subtract in int32.
UNLIMITED = 2**30

Number = Int[Array, ""] | int


class View(NamedTuple):
    """Of a layer.

    Attributes:
      window: how many tokens it may attend to, itself included; None: all before it.
      rotation: which of the model's rotations it uses.
      sparse: whether its feed-forward network is a mixture of experts.
      scale: factor on what its norms before attention and the feed-forward network give.
    """

    window: Number | None = None
    rotation: Number = 0
    sparse: bool = False
    scale: Float[Array, ""] | float = 1.0


class Arrays(NamedTuple):
    """Those parts of a run of layers' views that differ, with an axis of layers; None where they are alike."""

    window: Int[Array, " layers"] | None = None
    rotation: Int[Array, " layers"] | None = None
    scale: Float[Array, " layers"] | None = None


def views(config: ModelConfig, layers: Sequence[int]) -> tuple[View, Arrays]:
    """What a run of layers has in common, and what differs."""
    windows = [config.windows[layer] for layer in layers]
    rotations = [config.rotations[layer] for layer in layers]
    [sparse] = {config.is_sparse(layer) for layer in layers} or {False}
    shared, arrays = View(sparse=sparse), Arrays()
    if len(set(windows)) > 1:
        limits = [UNLIMITED if window is None else window for window in windows]
        arrays = arrays._replace(window=jnp.array(limits, jnp.int32))
    elif windows:
        shared = shared._replace(window=windows[0])
    if len(set(rotations)) > 1:
        arrays = arrays._replace(rotation=jnp.array(rotations, jnp.int32))
    elif rotations:
        shared = shared._replace(rotation=rotations[0])
    scales = [config.norm_scales[layer] for layer in layers] if config.norm_scales else []
    if len(set(scales)) > 1:
        arrays = arrays._replace(scale=jnp.array(scales, jnp.float32))
    elif scales:
        shared = shared._replace(scale=scales[0])
    return shared, arrays


def view(shared: View, own: Arrays) -> View:
    """One layer's view, from what its run has in common and its own entries of the arrays."""
    differing = {name: value for name, value in own._asdict().items() if value is not None}
    return shared._replace(**differing)


def view_of(config: ModelConfig, layer: int) -> View:
    """One layer's view, all of it a property of the program."""
    return views(config, [layer])[0]
