"""Run by tests/training/test_collectives.py in a process with eight devices: what devices send each other in a step.

    python -m tests.support.collectives FOLDER TRAIN MESH REMAT

FOLDER has a config.json and growth.json. Prints [kind, times, bytes] of every collective as JSON.
"""

import json
import sys

import jax

from lesa_jax.parallel.collectives import collectives
from lesa_jax.parallel.hlo import read_program
from lesa_jax.training.job import make_train_job
from lesa_jax.training.lowering import trace_step
from lesa_jax.training.settings import TrainSettings
from tests.support.settings import nest


def main(folder: str, train: str, mesh: str, remat: str) -> None:
    settings = nest(
        TrainSettings,
        model=folder,
        compile_for="h100x8",
        train=train,
        mesh=mesh,
        remat=remat,
        batch_size=16,
        sequence_length=32,
    )
    compiled = trace_step(make_train_job(settings, jax.devices())).lower().compile()
    sent = collectives(read_program(compiled.as_text()))
    print(json.dumps([[one.kind, one.times, one.nbytes] for one in sent]))


if __name__ == "__main__":
    main(*sys.argv[1:])
