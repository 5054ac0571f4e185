"""Work beside the main thread's."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def second_thread() -> Iterator[Executor]:
    """A thread for work beside the main one's; after an error or Ctrl-C nobody waits for it."""
    executor = ThreadPoolExecutor(1)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()
