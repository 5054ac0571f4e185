"""Makes a trained checkpoint deeper: `python -m lesa_jax.expand --model DIR_OR_HUB_ID --output DIR [options]`.

Reads a Hugging Face checkpoint, puts new layers between the old ones, and writes a Hugging Face checkpoint. Original
tensors are copied byte for byte; peak memory follows one kind of weight, never the model.
"""

import sys

from lesa_jax.command import run_command
from lesa_jax.growth.report import print_report
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings, options_of_growth


def main() -> int:
    return run_command(expand, ExpandSettings, print_report, recorded=options_of_growth, goes_on=True)


if __name__ == "__main__":
    sys.exit(main())
