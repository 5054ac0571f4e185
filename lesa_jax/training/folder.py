"""The folder of a training run, which knows the run by its settings, and by digests of all that it is made from."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lesa_jax.base.digests import digest
from lesa_jax.base.errors import InputError
from lesa_jax.base.locks import alone
from lesa_jax.base.settings import deciding
from lesa_jax.base.work_folder import Work
from lesa_jax.parallel.processes import from_first
from lesa_jax.training.inputs import NAMES
from lesa_jax.training.job import TrainJob

LOCK = "run.lock"
RUN = Work("run", "run.json", "not a run of lesa_jax.train", frozenset({LOCK}), setting="{name}={value}")
FINAL = "final"


@contextmanager
def hold_run(job: TrainJob) -> Iterator[None]:
    """The run's folder, made if it is missing and checked, for no other run than this: its first process holds a lock.

    Raises:
      InputError: another run works there; the folder is something else, or a run with other settings; it cannot be
        written to.
    """
    output = job.settings.output
    with ExitStack() as stack:

        def hold() -> None:
            earlier_run(job)
            output.mkdir(parents=True, exist_ok=True)
            busy = f"--output {output}: another process trains there; wait for its end, or choose another folder"
            stack.enter_context(alone(output / LOCK, busy))

        try:
            from_first(hold)
        except OSError as error:
            raise InputError(f"--output {output}: cannot be written to ({error.strerror}); choose another") from None
        check_run(job)
        yield


def check_run(job: TrainJob) -> None:
    """Refuses an output that is something else, or a run with other settings or of another model."""
    output = job.settings.output
    earlier = earlier_run(job)
    if earlier is None:
        if job.settings.resume:
            raise InputError(f"--resume: {output} holds no run to go on with; leave out --resume to start one")
        return
    if earlier["identity"] != job.identity:
        raise InputError(
            f"--output {output}: holds a run of another model, plan or --train; choose another folder for this one"
        )
    RUN.check_same(output, earlier["settings"], settings_of(job))


def earlier_run(job: TrainJob) -> dict[str, Any] | None:
    """What run.json has kept of an earlier run, if there was one."""
    output = job.settings.output
    try:
        earlier = RUN.earlier(output)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be read ({error.strerror}); choose another folder") from None
    if earlier is None:
        return None
    kinds = {"identity": str, "settings": dict, "inputs": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(earlier.get(name), kind)]
    if wrong:
        raise InputError(
            f"{output / RUN.file}: {wrong[0]!r} is missing or damaged (earlier versions of lesa_jax kept less), "
            "so nobody knows what its run was begun with; choose another folder"
        )
    return earlier


def settings_of(job: TrainJob) -> dict[str, Any]:
    """The settings that a resumed run must share, with what the job made of those that were left open."""
    settings = deciding(job.settings) | {
        "steps": job.optimizer.steps,
        "sequence_length": job.sequence_length,
        "dtype": job.program.dtype,
    }
    settings.pop("tokens")
    return settings


def begin_run(job: TrainJob, digests: Callable[[], dict[str, Any]]) -> str:
    """Writes down what the run is made from, or compares it with what it was begun with.

    All processes call it; the first one does it.

    Args:
      job: of the run.
      digests: gives those of all that it is made from.

    Returns:
      The digest of run.json's content.

    Raises:
      InputError: the model, the data, ... is another one.
    """

    def begin() -> str:
        output, inputs = job.settings.output, digests()
        earlier = earlier_run(job)
        before = inputs if earlier is None else earlier["inputs"]
        for name, what in NAMES.items():
            if before.get(name) != inputs[name]:
                versions = f" ({before.get(name)}, now {inputs[name]})" if name == "lesa_jax" else ""
                raise InputError(
                    f"--output {output}: its run was begun with another {what}{versions}; give that one, or "
                    "choose another folder"
                )
        record = {"identity": job.identity, "settings": settings_of(job), "inputs": inputs}
        if earlier is None:
            RUN.keep(output, record)
        return digest(record)

    return from_first(begin)
