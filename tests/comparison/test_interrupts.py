"""A signal is heard at the next check, even where nobody heard the KeyboardInterrupt that it raised."""

import os
import signal
import threading
from contextlib import suppress

import pytest

from lesa_jax.comparison.interrupts import no_signal_lost


@pytest.fixture(autouse=True)
def not_ignored():
    """A shell starts background jobs with Ctrl-C ignored, and the tests may be such a job."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_swallowed_signal_is_heard_at_the_next_check():
    with no_signal_lost() as check:
        check()
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            check()


@pytest.fixture
def unhandled():
    """SIGTERM as a process begins with it; a command that a test ran here before has handled it since."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_handlers_are_those_of_before_afterwards_and_what_is_not_handled_stays_so(unhandled):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with no_signal_lost():
        assert signal.getsignal(signal.SIGINT) != before[0]
        assert signal.getsignal(signal.SIGTERM) == before[1] == signal.SIG_DFL
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_another_thread_may_compare():
    found = []

    def work():
        with no_signal_lost() as check:
            check()
            found.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found
