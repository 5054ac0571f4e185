"""A checkpoint goes on with a text: `python -m lesa_jax.generate --model DIR_OR_HUB_ID --prompt "Once upon a time"`.

Prints the text as it is written. Computes in float32, on accelerators at full matrix precision, from weights kept in
their stored dtype.
"""

import functools
import sys

from lesa_jax.command import run_command
from lesa_jax.decoding.run import generate, say, show, telling
from lesa_jax.decoding.settings import GenerateSettings

__all__ = ["generate", "main"]


def main() -> int:
    return run_command(functools.partial(telling, tell=say), GenerateSettings, show)


if __name__ == "__main__":
    sys.exit(main())
