"""Gradients in the dtype of the products that they come from.

Trained weights are float32, and products read them in half precision. The gradient of such a product by its weight is
in half precision, too; but JAX gives a gradient the dtype of what it is of. So a weight goes into the loss as two: its
value, of which no gradient is taken, and a sink of zeros in the products' dtype, which takes it. Nobody reads the
zeros, so they never exist; the gradient of all layers takes half of the memory.
"""

from typing import Any

import flax.struct
import jax


@flax.struct.dataclass
class Wide:
    """A weight that products read in the dtype of its sink, which takes its gradient."""

    value: Any
    sink: Any


def read(leaf: Any) -> Any:
    """A weight as products want it; what is no `Wide` as it is."""
    return _read(leaf.value, leaf.sink) if isinstance(leaf, Wide) else leaf


@jax.custom_vjp
def _read(value: Any, sink: Any) -> Any:
    return value.astype(sink.dtype)


_read.defvjp(lambda value, sink: (_read(value, sink), None), lambda saved, gradient: (None, gradient))
