"""A signal stops a run in order, or ends it; it is never lost."""

import os
import signal

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.parallel.stop import stop_signal

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@SIGNALS
def test_the_answer_is_yes_from_the_signal_on_and_the_handlers_come_back(number):
    before = signal.getsignal(number)
    with stop_signal() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        assert stop()
    assert signal.getsignal(number) == before


@SIGNALS
def test_the_second_one_ends_at_once(number):
    def ask_twice() -> None:
        with stop_signal() as stop:
            os.kill(os.getpid(), number)
            assert stop()
            os.kill(os.getpid(), number)
            pytest.fail("goes on")

    with pytest.raises(KeyboardInterrupt):
        ask_twice()


@SIGNALS
@pytest.mark.parametrize("told", [True, False])
def test_one_that_a_failure_hides_is_not_lost(number, told):
    """A comparison notes what fails and goes on with the next."""

    def fail() -> None:
        with stop_signal() as stop:
            os.kill(os.getpid(), number)
            assert not told or stop()
            raise InputError("the disk is full")

    with pytest.raises(KeyboardInterrupt):
        fail()


@SIGNALS
def test_one_that_nobody_asked_about_is_not_lost(number):
    def end() -> None:
        with stop_signal() as stop:
            assert not stop()
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        end()


def test_without_a_signal_an_error_is_itself():
    with pytest.raises(InputError, match="full"), stop_signal():
        raise InputError("the disk is full")
