"""The folder of a training run, which knows the run by its settings, its model and its plan."""

from typing import Any

import jax

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import deciding
from lesa_jax.base.work_folder import Work
from lesa_jax.parallel.processes import meet
from lesa_jax.training.job import TrainJob

RUN = Work("run", "run.json", "not a run of lesa_jax.train", setting="{name}={value}")


def check_run(job: TrainJob) -> None:
    """Refuses an output that is something else, or a run with other settings, model or plan."""
    output = job.settings.output
    if job.settings.resume and not (output / RUN.file).exists():
        raise InputError(f"--resume: {output} holds no run to go on with; leave out --resume to start one")
    earlier = RUN.earlier(output)
    if earlier is None:
        return
    if earlier.get("identity") != job.identity:
        raise InputError(
            f"--output {output}: holds a run of another model, plan or --train; choose another folder for this one"
        )
    RUN.check_same(output, earlier["settings"], record(job)["settings"])


def record(job: TrainJob) -> dict[str, Any]:
    """run.json: what a resumed run must share, with what the job made of settings that were left open."""
    settings = deciding(job.settings) | {
        "steps": job.optimizer.steps,
        "sequence_length": job.sequence_length,
        "dtype": job.program.dtype,
    }
    settings.pop("tokens")
    return {"identity": job.identity, "settings": settings}


def start_run(job: TrainJob) -> None:
    """Makes the run's folder, or leaves an earlier run's as it is."""
    meet("every process has looked at the folder")  # before one writes there what another would take for foreign
    output = job.settings.output
    output.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0 and not (output / RUN.file).exists():
        RUN.keep(output, record(job))
