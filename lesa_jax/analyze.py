"""Looks at a model layer by layer: `python -m lesa_jax.analyze --model DIR_OR_HUB_ID --text FILE --output DIR`.

Writes analysis.json, plan.json, report.html and its charts, and prints a table and a verdict: how deep the model
effectively is, which layers do little, which kinds of weight follow depth, and where a new layer would be put by what
was measured. With `--base` also what became of a grown model.
"""

import sys

from lesa_jax.analysis.report import print_report
from lesa_jax.analysis.run import analyze
from lesa_jax.analysis.settings import AnalyzeSettings
from lesa_jax.command import run_command


def main() -> int:
    return run_command(analyze, AnalyzeSettings, print_report)


if __name__ == "__main__":
    sys.exit(main())
