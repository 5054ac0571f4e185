"""Where the time goes, and how far the work is."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field


@contextmanager
def stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the block's wall-clock time to `seconds[name]`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Meter:
    """What long work is told to.

    Attributes:
      seconds: by stage.
      advance: is called with amounts of work that are done.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    advance: Callable[[float], None] = lambda work: None

    def stage(self, name: str) -> AbstractContextManager[None]:
        return stage(self.seconds, name)
