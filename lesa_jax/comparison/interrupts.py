"""Signals that end a comparison, wherever it is."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def no_signal_lost() -> Iterator[Callable[[], None]]:
    """A check for between two parts of the work: raises KeyboardInterrupt if a signal came before.

    A signal raises it at once, as always. But where that happens in a callback or a destructor, nobody hears of it.
    """
    asked: list[int] = []

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield check
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        handler = before[signal.Signals(number)]
        assert callable(handler)
        handler(number, frame)

    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, note)
    try:
        yield check
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)
