"""One process at a time. A lock is a file, and goes with the process that holds it, however that ends."""

import fcntl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lesa_jax.base.errors import InputError


@contextmanager
def alone(lock: Path, refusal: str) -> Iterator[None]:
    """A block that no other process is in.

    Raises:
      InputError: one is; with `refusal` as its message.
    """
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        raise InputError(refusal) from None
    try:
        yield
    finally:
        held.release()


@contextmanager
def turn(lock: Path, what: str) -> Iterator[None]:
    """A block that one process at a time is in; the others wait and say that one of them does `what`."""
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        print(f"waiting for another process, which {what}", file=sys.stderr)
        held.acquire()
    try:
        yield
    finally:
        held.release()


@contextmanager
def among_others(lock: Path) -> Iterator[Callable[[], bool]]:
    """A block that any number of processes may be in, and a question for its end: is nobody else in it any more?

    Who asks has left. After a yes nobody comes in until the block has ended; of several that ask, the last gets it.
    """
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)

        def last() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which gives the shared lock back, whatever comes
            except BlockingIOError:
                return False
            return True

        yield last
