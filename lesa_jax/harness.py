"""A checkpoint's scores on tasks of lm-evaluation-harness: `python -m lesa_jax.harness --model DIR --tasks arc_easy`.

Prints a table; `--output FILE` keeps the results as JSON. Needs `pip install 'lesa_jax[eval]'`.
"""

import sys

from lesa_jax.command import run_command
from lesa_jax.tasks.run import harness, show
from lesa_jax.tasks.settings import HarnessSettings


def main() -> int:
    return run_command(harness, HarnessSettings, show)


if __name__ == "__main__":
    sys.exit(main())
