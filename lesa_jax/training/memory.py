"""What does not fit into memory ends in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from lesa_jax.base.errors import InputError


@contextmanager
def enough_memory() -> Iterator[None]:
    """A block whose errors for want of memory, the host's or a device's, say what can be done.

    Raises:
      InputError: in their place.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        words = str(error)
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in words:
            raise
        reason = (words or "MemoryError").split("\n")[0]
        raise InputError(
            f"out of memory ({reason}); use a larger --accumulate, --remat full, a smaller --batch-size or "
            "--sequence-length, or more devices (--mesh fsdp=-1)"
        ) from error
