"""The loop over training steps: batches in, metrics and checkpoints out."""

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lesa_jax.data.loader import Loader
from lesa_jax.parallel.mesh import BATCH
from lesa_jax.parallel.stop import stop_signal
from lesa_jax.training.checkpoints import Checkpoints
from lesa_jax.training.held_out import Evaluation
from lesa_jax.training.job import TrainJob
from lesa_jax.training.optimizer import rates
from lesa_jax.training.recorder import recorder
from lesa_jax.training.start import Run
from lesa_jax.training.step import Batch, compile_step


def loop(job: TrainJob, run: Run, loader: Loader, checkpoints: Checkpoints, evaluation: Evaluation | None) -> bool:
    """Trains to the end, or until asked to stop; returns whether it was asked, be it after the last step.

    A step's numbers are fetched when the next one is on its way, so that the devices never wait for the host. But
    nothing is saved before they are seen to be finite.
    """
    total, eval_every = job.optimizer.steps, job.settings.held_out.eval_every
    save_every = job.settings.keeping.save_every
    step_program = compile_step(job.program, job.optimizer.rule, run.placed, job.mesh)
    done = saved = int(run.state.step)
    rate = rates(job.optimizer, done)
    with stop_signal() as stop:
        with recorder(job, run, evaluation, stop) as record:
            record.begin()
            while done < total and run.unmeasured is None and not stop():
                batch = device_batch(job, next(loader))
                run.state, metrics = step_program(run.state, run.frozen, batch, next(rate))
                done += 1
                record.step(done, metrics)
                to_measure = evaluation is not None and (done % eval_every == 0 or done == total)
                to_save = done % save_every == 0 or done == total
                if to_measure or to_save:
                    record.catch_up(to_measure)
                if to_save:
                    save(job, run, loader, checkpoints, done)
                    saved = done
                    record.clock.pause()
            record.catch_up()
            if saved < done:
                save(job, run, loader, checkpoints, done)
        checkpoints.wait()
        # Several processes hear of a signal one question later.
        return run.unmeasured is not None or stop() or stop()


def device_batch(job: TrainJob, rows: dict[str, np.ndarray]) -> Batch:
    """A loader's batch [sequences, tokens] as a global one [accumulate, sequences, tokens] on the mesh."""
    sharding = NamedSharding(job.mesh, P(None, BATCH))
    parts = job.settings.batch.accumulate
    sequences = job.settings.batch.batch_size // parts

    def place(x: np.ndarray) -> jax.Array:
        local = np.ascontiguousarray(x).reshape(parts, -1, x.shape[-1])
        return jax.make_array_from_process_local_data(sharding, local, (parts, sequences, x.shape[-1]))

    return Batch.of_rows({name: place(x) for name, x in rows.items()})


def save(job: TrainJob, run: Run, loader: Loader, checkpoints: Checkpoints, step: int) -> None:
    """A checkpoint of the state and of where data and measurements stand."""
    facts = {
        "identity": job.identity,
        "record": run.record,
        "loader": loader.get_state(),
        "first_losses": run.first_losses,
        "last_losses": run.last_losses,
        "base_losses": run.base_losses,
        "unmeasured": run.unmeasured,
    }
    checkpoints.save(run.state, step, facts)
