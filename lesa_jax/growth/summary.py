"""What is said of an expansion: to the caller as a result, to the output's readers as growth.json."""

import math
import platform
import resource
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from lesa_jax.base.machine import cores
from lesa_jax.base.settings import option
from lesa_jax.checkpoint.format import FLOATS
from lesa_jax.families.kinds import kind_name
from lesa_jax.families.periods import traps
from lesa_jax.growth.job import ExpandJob
from lesa_jax.growth.recipe import not_predicted
from lesa_jax.growth.result import ExpandResult, KindResult, RouterResult
from lesa_jax.growth.settings import out_of_place, recorded_settings
from lesa_jax.planning.config import config_changes
from lesa_jax.planning.methods import OWNERS, Aligned
from lesa_jax.planning.record import Growth


def summarise(
    job: ExpandJob,
    seconds: Mapping[str, float],
    kinds: Mapping[str, KindResult],
    perplexity: Mapping[str, float],
    scales: tuple[float, ...],
    losses: Mapping[str, float],
    checked: int = 0,
    routers: tuple[RouterResult, ...] = (),
) -> ExpandResult:
    """The result of a job; what was not measured is empty. `checked` counts the tokens on which it was compared."""
    floats = [part for part in job.parts if part.spec.dtype in FLOATS]
    sizes = [math.prod(part.spec.shape) for part in floats]
    return ExpandResult(
        method=job.settings.method,
        output=job.settings.output,
        plan=job.plan,
        parameters=(job.checkpoint.parameters, sum(sizes)),
        new_parameters=sum(size for part, size in zip(floats, sizes, strict=True) if part.new),
        nbytes=job.layout.nbytes,
        perplexity=perplexity,
        # In an order that does not depend on what else was grown at once.
        kinds={kind.name: kinds[kind.name] for kind in job.computed if kind.name in kinds},
        silenced=tuple(sorted({kind_name(part.stack) for part in job.parts if part.made == "zero"})),
        not_predicted=not_predicted(job.parts),
        function=function_kept(job, checked),
        scales=scales,
        losses=losses,
        routers=routers,
        notes=(*shrinkage(job, kinds), *notes(job)),
        seconds=dict(seconds),
        peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        estimated_memory=job.memory.peak,
        scratch=job.memory.scratch,
        dry_run=job.settings.dry_run,
    )


def shrinkage(job: ExpandJob, kinds: Mapping[str, KindResult]) -> Iterator[str]:
    """How loud new layers were made, where that follows from how well they are predicted."""
    writers = {
        kind_name(part.stack, part.loudness.writer) for part in job.parts if part.new and part.loudness is not None
    }
    factors = {name: kinds[name].agreement for name in sorted(writers & kinds.keys())}
    if job.shrinks and factors:
        loud = ", ".join(f"{name} {factor:.3g}" for name, factor in factors.items())
        yield f"new layers are as loud as predictions of old ones agree with these: {loud}, where 1 is as published"


def notes(job: ExpandJob) -> tuple[str, ...]:
    """What the method could not do with this family of models, and what others may not understand of the result."""
    found = (
        *(
            f"{option(name)} belongs to {OWNERS[name]}, and changes nothing for {job.method.name}"
            for name in out_of_place(job.settings, job.method)
        ),
        *traps(
            job.checkpoint.config, job.plan.old_layers, job.plan.layers, job.plan.encoder and job.plan.encoder.layers
        ),
    )
    if isinstance(job.method.start, Aligned) and (not job.runs or job.plan.encoder is not None):
        why = "an encoder-decoder" if job.runs else "which has no forward pass"
        return (
            f"{job.method.name} aligns rows only here: what reads the output of attention is not known of "
            f"{job.checkpoint.config.get('model_type')}, {why}",
            *found,
        )
    return found


def function_kept(job: ExpandJob, checked: int) -> str:
    """Whether old layers compute what they did, and how that is known; empty where nothing is promised or doubted."""
    if checked:
        return f"checked: on {checked} tokens the logits are the original's, to the bit"
    if job.preserves and job.runs:  # a dry run
        return "to be checked: both models will run on a few tokens"
    if job.doubts:
        return f"not verified: {'; '.join(job.doubts)}"
    if job.preserves:
        kind = job.checkpoint.config.get("model_type")
        return f"not run, as {kind} has no forward pass here; unchanged by its type, its entries and its tensors"
    return ""


def would_be(job: ExpandJob, seconds: Mapping[str, float]) -> ExpandResult:
    """The result that a job will have, as far as it is known beforehand."""
    return summarise(job, seconds, kinds={}, perplexity={}, scales=(), losses={})


def growth_record(job: ExpandJob, source: Mapping[str, Any], result: ExpandResult) -> Growth:
    """growth.json of the output."""
    measurements = {
        "parameters": {"before": result.parameters[0], "after": result.parameters[1]},
        "perplexity": result.perplexity,
        "kinds": {name: asdict(kind) for name, kind in result.kinds.items()},
        "not_predicted": list(result.not_predicted),
        "function": result.function,
    }
    if result.scales:
        measurements["calibration"] = {"scales": list(result.scales), "losses": result.losses}
    if result.routers:
        measurements["routers"] = [asdict(router) for router in result.routers]
    checkpoint = job.checkpoint
    tensors = Counter(entry.file.name for entry in checkpoint.entries.values())
    source = {
        **source,
        "tensors": {file.name: tensors[file.name] for file in checkpoint.files},
        "config": config_changes(checkpoint.config, job.config),
    }
    settings = recorded_settings(job.settings, job.method)
    computed = job.method.start.computed or bool(result.perplexity) or bool(result.scales)
    machine = this_machine() if computed else {}
    return Growth(job.settings.method, job.plan, settings, source, measurements, machine=machine)


def this_machine() -> dict[str, Any]:
    """What the last digits of computed numbers depend on beside versions: an eigensolver sums by its threads."""
    import jax  # copying runs without

    return {"device": jax.devices()[0].device_kind, "processor": platform.machine(), "cores": cores()}
