"""One process at a time."""

import subprocess
import sys
import threading

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.locks import alone, among_others, turn

HOLD = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
input()
"""


@pytest.fixture
def other_process(tmp_path):
    """Holds tmp_path/lock until it is told to end."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_alone_refuses_while_another_holds_it_and_works_when_that_one_is_killed(tmp_path, other_process):
    with pytest.raises(InputError, match="somebody is here"), alone(tmp_path / "lock", "somebody is here"):
        pass
    other_process.kill()
    other_process.wait()
    with alone(tmp_path / "lock", "somebody is here"):
        pass


def test_turn_says_what_it_waits_for(tmp_path, other_process, capsys):
    threading.Timer(0.3, other_process.kill).start()
    with turn(tmp_path / "lock", "tokenises the data"):
        assert "waiting for another process, which tokenises the data" in capsys.readouterr().err


def test_of_several_that_are_in_it_only_the_one_that_leaves_last_is_told_so(tmp_path):
    lock = tmp_path / "lock"
    with among_others(lock) as first:
        with among_others(lock) as second:
            assert not first()
            assert second()
        with among_others(lock) as third:
            assert third()
