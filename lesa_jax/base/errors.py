"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line that names the thing and the remedy.

    Commands print it on stderr and exit with code 2 (`lesa_jax.command`); Python callers catch a ValueError.
    """
