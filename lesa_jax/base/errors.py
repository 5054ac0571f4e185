"""The one exception that a user is meant to read, one of its kind that a sweep of learning rates outlives, and the one
that a signal raises."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # numbers of an OSError that a full disk raises


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line that names the thing and the remedy.

    Commands print it on stderr and exit with code 2 (`lesa_jax.command`); Python callers catch a ValueError.
    """


class DivergedError(InputError):
    """A training whose loss or gradient is no number any more: at a lower learning rate it may go on."""


class Terminated(KeyboardInterrupt):
    """SIGTERM. The system wants the process gone and may start it anew, as it does with preempted jobs: work that can
    go on is kept. Ctrl-C is the user's own wish to have none of it.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`: did you mean NAME?`, to stand behind a name that there is not; nothing where none is like it."""
    near = get_close_matches(name, known, 1)
    return f": did you mean {near[0]}?" if near else ""
