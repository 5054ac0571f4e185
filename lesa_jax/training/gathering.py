"""Weights that devices share are put together once for a pass over their layer, and their gradient is shared again.

XLA gathers a shared weight wherever a product wants it: in a backward pass twice, for what is computed again and for
the gradient. Gathered by name before both, it comes once; and what is added up over the devices' sequences is a
gradient of which each device keeps its share, which is half of what is sent where each is given the whole.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.shapes import layer_tensors
from lesa_jax.parallel.mesh import AXIS_RULES, pinned, sharing_axes

SHARES = AXIS_RULES["embed"]  # the axis of weights whose parts are at home on different devices
Axes = tuple[str | None, ...]


def product_axes(config: ModelConfig, layer: int) -> dict[tuple[str, ...], Axes]:
    """Which axes share the matrices that products read in the dtype of the stream, by their paths in the layer's tree:
    all but a router, which is read in float32."""
    router = None if config.experts is None else f"{config.experts.names.router}.weight"
    return {
        tuple(key for key in name.split(".") if key != "*"): sharing_axes(tensor.array_axes)
        for name, tensor in layer_tensors(config, layer).items()
        if tensor.role == "matrix" and name != router
    }


def shared_weights(config: ModelConfig, layer: int) -> dict[tuple[str, ...], Axes]:
    """Those that are to be gathered; experts see to themselves."""
    of_experts = AXIS_RULES["experts"]
    return {
        path: axes for path, axes in product_axes(config, layer).items() if SHARES in axes and of_experts not in axes
    }


def gathered(layer: Tree, shared: Mapping[tuple[str, ...], Axes], dtype: DTypeLike) -> Tree:
    """The layer with its shared matrices whole, but for what `tensor` shares, in the dtype of the products."""
    flat: dict[tuple[str, ...], Any] = dict(flatten_dict(layer))
    return unflatten_dict(
        {path: gather(leaf.astype(dtype), shared[path]) if path in shared else leaf for path, leaf in flat.items()}
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gather(weight: Any, axes: Axes) -> Any:
    return pinned(weight, *(None if axis == SHARES else axis for axis in axes))


def _forward(weight: Any, axes: Axes) -> tuple[Any, None]:
    return gather(weight, axes), None


def _backward(axes: Axes, saved: None, gradient: Any) -> tuple[Any]:
    return (pinned(gradient, *axes),)


gather.defvjp(_forward, _backward)
