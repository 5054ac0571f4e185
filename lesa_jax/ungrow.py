"""Takes new layers out of a grown model: `python -m lesa_jax.ungrow --model DIR_OR_HUB_ID --output DIR [options]`.

By default all that growth.json calls new, so that the original is what is left; or those that are named, or without
which the loss is no higher. Tensors are copied byte for byte, one at a time.
"""

import sys

from lesa_jax.command import run_command
from lesa_jax.ungrowth.report import print_report
from lesa_jax.ungrowth.run import ungrow
from lesa_jax.ungrowth.settings import UngrowSettings


def main() -> int:
    return run_command(ungrow, UngrowSettings, print_report)


if __name__ == "__main__":
    sys.exit(main())
