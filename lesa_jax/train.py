"""Continual pre-training and fine-tuning: `python -m lesa_jax.train --model DIR --data FILES --tokens N --output RUN`.

By default only the new layers of a grown model are trained (arXiv 2502.13794, section 3.3); growth.json names them.
"""

import sys

from lesa_jax.command import run_command
from lesa_jax.training.compiled import CompiledStep, compile_for
from lesa_jax.training.compiled_report import print_compiled
from lesa_jax.training.report import print_train_report
from lesa_jax.training.result import TrainResult
from lesa_jax.training.run import train
from lesa_jax.training.settings import TrainSettings


def train_or_compile(settings: TrainSettings) -> TrainResult | CompiledStep:
    return train(settings) if settings.compile_for is None else compile_for(settings)


def show(result: TrainResult | CompiledStep) -> None:
    if isinstance(result, CompiledStep):
        print_compiled(result)
    else:
        print_train_report(result)


def main() -> int:
    return run_command(
        train_or_compile,
        TrainSettings,
        show,
        interrupted="run the same command again to go on from the last checkpoint",
    )


if __name__ == "__main__":
    sys.exit(main())
