"""Makes a trained checkpoint wider: `python -m lesa_jax.widen --model DIR_OR_HUB_ID --output DIR [options]`.

Reads a Hugging Face checkpoint and writes one with 2 to 8 times the hidden size, feed-forward width and heads, which
computes what the original computes. Weights stream, one tensor at a time; no JAX is needed.
"""

import sys

from lesa_jax.command import run_command
from lesa_jax.widening.report import print_report
from lesa_jax.widening.run import widen
from lesa_jax.widening.settings import WidenSettings


def main() -> int:
    return run_command(widen, WidenSettings, print_report)


if __name__ == "__main__":
    sys.exit(main())
