"""Makes a trained checkpoint deeper: `python -m lesa_jax.expand --model DIR_OR_HUB_ID --output DIR [options]`.

Reads a Hugging Face checkpoint, puts new layers between the old ones, and writes a Hugging Face checkpoint. Original
tensors are copied byte for byte; peak memory follows one kind of weight, never the model.
"""

import sys

from lesa_jax.cli import run_command
from lesa_jax.errors import InputError
from lesa_jax.expand_settings import ExpandSettings
from lesa_jax.grow import grow
from lesa_jax.report import ExpandReport, print_report


def expand(settings: ExpandSettings) -> ExpandReport:
    """Grows a checkpoint; see `ExpandSettings`.

    Returns:
      What was done and measured; for a dry run, what would be done.

    Raises:
      InputError: bad input, found before anything is written; nothing carries the output's name then.
    """
    [outcome] = grow([settings])
    if isinstance(outcome, InputError):
        raise outcome
    return outcome


def main() -> int:
    return run_command(expand, ExpandSettings, print_report)


if __name__ == "__main__":
    sys.exit(main())
