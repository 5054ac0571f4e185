"""Perplexity of a checkpoint on a text: `python -m lesa_jax.evaluate --model DIR_OR_HUB_ID --text FILE`.

Prints one JSON object. Computes in float32, on accelerators at full matrix precision, from weights kept in their
stored dtype. `lesa_jax.evaluation.protocol` defines the two protocols.
"""

import sys

from lesa_jax.command import run_command
from lesa_jax.evaluation.run import evaluate, show
from lesa_jax.evaluation.settings import EvaluateSettings


def main() -> int:
    return run_command(evaluate, EvaluateSettings, show)


if __name__ == "__main__":
    sys.exit(main())
