"""Layers of different sizes: `python -m lesa_jax.profile crown --layers 18 --hidden-size 768 [options]`.

Prints the feed-forward width and the attention heads of every layer, and how many parameters such a model has; writes
its config.json, from which `lesa_jax.train --init random` is to make it. Needs no JAX.
"""

import sys

from lesa_jax.command import run_command
from lesa_jax.profiles.report import print_report
from lesa_jax.profiles.run import profile
from lesa_jax.profiles.settings import ProfileSettings


def main() -> int:
    return run_command(profile, ProfileSettings, print_report)


if __name__ == "__main__":
    sys.exit(main())
