"""Perplexity of a checkpoint on a text: `python -m lesa_jax.evaluate --model DIR_OR_HUB_ID --text FILE`.

Prints one JSON object. Computes in float32, on accelerators at full matrix precision, from weights kept in their
stored dtype. `lesa_jax.metrics` defines the two protocols.
"""

import sys

from lesa_jax.command import run_command
from lesa_jax.evaluation.run import EvaluateSettings, evaluate, show

if __name__ == "__main__":
    sys.exit(run_command(evaluate, EvaluateSettings, show))
