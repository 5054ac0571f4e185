"""Growth methods side by side on one model: `python -m lesa_jax.compare --model DIR --text FILE --output DIR`.

All variants are grown together, so that every weight is read, taken apart and learned once; then each is measured, and
with --train-data trained on the same batches. The report is made from what lies finished in the output folder, so that
several processes may work on one comparison, each on a device of its own.
"""

import sys

from lesa_jax.base.console import report_console
from lesa_jax.command import FAILED, INTERRUPTED, run_command
from lesa_jax.comparison.result import Comparison
from lesa_jax.comparison.run import compare
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.statistics import summarise
from lesa_jax.comparison.terminal import print_table

GO_ON = "run the same command again to go on"


def print_comparison(comparison: Comparison) -> int:
    """Prints the table; where a training was stopped, how to go on instead. Returns the exit code."""
    if comparison.stopped:
        print(f"interrupted: {GO_ON}", file=sys.stderr)
        return INTERRUPTED
    print_table(summarise(comparison), report_console())
    return FAILED if all(outcome.error is not None for outcome in comparison.outcomes[1:]) else 0


def main() -> int:
    return run_command(compare, CompareSettings, print_comparison, interrupted=GO_ON)


if __name__ == "__main__":
    sys.exit(main())
