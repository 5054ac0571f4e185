"""When a training run stops early: after SIGTERM or Ctrl-C, on all processes before the same step."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


@contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """A question to be asked before each step, and wherever work can be left, by all processes: is it time to stop?

    The first SIGTERM or Ctrl-C, to any of the processes, makes the answer yes; a second one raises KeyboardInterrupt.
    No signal is lost: one that nobody was told of, or after which the block fails, ends it with KeyboardInterrupt.
    """
    asked: list[int] = []
    told: list[bool] = []

    def ask(signum: int, frame: FrameType | None) -> None:
        if asked:  # a second time: at once
            raise KeyboardInterrupt
        asked.append(signum)

    answer = (lambda: bool(asked)) if jax.process_count() == 1 else shared(lambda: bool(asked))

    def stop() -> bool:
        if not told and answer():
            told.append(True)
        return bool(told)

    before = [(number, signal.signal(number, ask)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield stop
    except Exception as error:
        if asked:  # whoever catches the error would go on
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    if asked and not told:
        raise KeyboardInterrupt


def shared(asked: Callable[[], bool]) -> Callable[[], bool]:
    """Whether any process was `asked`; all of them hear it at the same question, one question later.

    A signal reaches one process, or each at another step; one that went on alone would wait for the others forever. So
    the question is a collective of its own, between two steps. Its answer is read after the step that follows is on
    its way, when the devices have long computed it: they never wait for the host.
    """
    mesh = Mesh(np.asarray(jax.devices()), "device")
    each = NamedSharding(mesh, P("device"))
    largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))
    waiting: list[jax.Array] = []

    def stop() -> bool:
        flag = np.array([asked()], np.int32)
        flags = jax.make_array_from_callback((mesh.size,), each, lambda index: flag)
        waiting.append(largest(flags))
        return len(waiting) > 1 and bool(waiting.pop(0))

    return stop
