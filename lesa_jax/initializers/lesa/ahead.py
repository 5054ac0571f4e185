"""Programs before their arguments exist: to be compiled while the processor is busy with something that XLA cannot
spread evenly, or by the compiler of a device that is not here."""

from typing import Any, NamedTuple

import jax


class Ahead(NamedTuple):
    """A later call of a jitted function, with a `jax.ShapeDtypeStruct` for each array."""

    name: str
    function: jax.stages.Wrapped
    args: tuple[Any, ...]

    def compile(self) -> None:
        """The call then finds the executable in JAX's cache."""
        self.function.lower(*self.args).compile()
