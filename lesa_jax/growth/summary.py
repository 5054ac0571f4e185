"""What is said of an expansion: to the caller as a result, to the output's readers as growth.json."""

import math
import os
import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lesa_jax.checkpoint.format import FLOATS
from lesa_jax.growth.job import ExpandJob
from lesa_jax.growth.result import ExpandResult, KindResult
from lesa_jax.growth.settings import recorded_settings
from lesa_jax.growth.weights import computation_memory, kind_name
from lesa_jax.planning.record import Growth


def summarise(
    job: ExpandJob,
    seconds: Mapping[str, float],
    kinds: Mapping[str, KindResult],
    perplexity: Mapping[str, float],
    scales: tuple[float, ...],
    losses: Mapping[str, float],
) -> ExpandResult:
    """The result of a job; what was not measured is empty."""
    floats = [part for part in job.parts if part.stack.spec.dtype in FLOATS]
    sizes = [math.prod(part.stack.spec.shape) for part in floats]
    return ExpandResult(
        method=job.settings.method,
        output=job.settings.output,
        plan=job.plan,
        parameters=(job.checkpoint.parameters, sum(sizes)),
        new_parameters=sum(size for part, size in zip(floats, sizes, strict=True) if part.new),
        nbytes=job.layout.nbytes,
        perplexity=perplexity,
        kinds=kinds,
        silenced=tuple(sorted({kind_name(part.stack) for part in job.parts if part.made == "zero"})),
        scales=scales,
        losses=losses,
        seconds=dict(seconds),
        peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        estimated_memory=computation_memory(job.computed),
        dry_run=job.settings.dry_run,
    )


def would_be(job: ExpandJob, seconds: Mapping[str, float]) -> ExpandResult:
    """The result that a job will have, as far as it is known beforehand."""
    return summarise(job, seconds, kinds={}, perplexity={}, scales=(), losses={})


def growth_record(job: ExpandJob, source: Mapping[str, Any], result: ExpandResult) -> Growth:
    """growth.json of the output."""
    measurements = {
        "parameters": {"before": result.parameters[0], "after": result.parameters[1]},
        "perplexity": result.perplexity,
        "kinds": {name: asdict(kind) for name, kind in result.kinds.items()},
    }
    if result.scales:
        measurements["calibration"] = {"scales": list(result.scales), "losses": result.losses}
    settings = recorded_settings(job.settings, job.method)
    computed = job.method.start.computed or bool(result.perplexity) or bool(result.scales)
    machine = this_machine() if computed else {}
    return Growth(job.settings.method, job.plan, settings, source, measurements, machine=machine)


def this_machine() -> dict[str, Any]:
    """What the last digits of computed numbers depend on beside versions: an eigensolver sums by its threads."""
    import jax  # copying runs without

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"device": jax.devices()[0].device_kind, "processor": platform.machine(), "cores": cores}
