"""Several processes as one run."""

import json
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lesa_jax.base.errors import InputError

COORDINATES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join_processes() -> None:
    """Makes this process one of several: as the environment says, or as Cloud TPU or Slurm does.

    Raises:
      InputError: the environment says half of it, or nobody answers.
    """
    given = [os.environ.get(name) for name in COORDINATES]
    if any(given) and not all(given):
        missing = next(name for name, value in zip(COORDINATES, given, strict=True) if not value)
        raise InputError(f"--distributed: {missing} is not set; set all of {', '.join(COORDINATES)}, or none")
    address, count, number = given
    # JAX's preemption service would take SIGTERM for itself. It counts steps from 0 when the signal comes before the
    # first one, and Orbax tells it an older step whenever a save ends: either way the step on which it settles may be
    # past, and then nobody stops, or not everybody. `stop.stop_signal` does without it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if address and count and number:
            jax.distributed.initialize(address, int(count), int(number))
        else:
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"--distributed: cannot join the other processes ({reason}); set {COORDINATES[0]} etc."
        ) from None


def meet(where: str) -> None:
    """Waits until all processes of the run have come to the same place; there is nobody to wait for in a single one."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def from_first(make: Callable[[], Any]) -> Any:
    """What `make` gives in the first process, a JSON value, in all of them; its InputError is raised in all, too.

    For what only one should do or can hold, and without which the others would wait for it forever.
    """
    if jax.process_count() == 1:
        return make()
    answer: dict[str, Any] = {}
    if jax.process_index() == 0:
        try:
            answer["value"] = make()
        except InputError as error:
            answer["error"] = str(error)
    data = json.dumps(answer).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    told = multihost_utils.broadcast_one_to_all(np.frombuffer(data.ljust(length)[:length], np.uint8))
    answer = json.loads(np.asarray(told).tobytes())
    if "error" in answer:
        raise InputError(answer["error"])
    return answer["value"]
