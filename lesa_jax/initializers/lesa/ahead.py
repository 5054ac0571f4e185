"""Compiling before the arguments exist, while the processor is busy with something that XLA cannot spread evenly."""

import jax


def compile_ahead(function: jax.stages.Wrapped, *args: object) -> None:
    """Compiles a jitted function for arguments of these shapes; a later call finds the executable in JAX's cache.

    Args:
      function: what `jax.jit` returned.
      args: as in the later call, with a `jax.ShapeDtypeStruct` (or an array) for each array.
    """
    function.lower(*args).compile()
