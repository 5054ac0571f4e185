"""What the compiler of a TPU or a GPU makes of a run's step: does it fit, what is sent, how fast can it be at best.

The very step that the run would take is compiled, on any machine; nothing runs, and neither weights nor data are read.
"""

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import jax
from jax.extend.core import jaxprs_in_params

from lesa_jax.base.files import write_json
from lesa_jax.parallel.collectives import KINDS, Collective, collectives
from lesa_jax.parallel.compilation import Compilation, compile_lowered
from lesa_jax.parallel.mesh import parse_mesh, row_shares
from lesa_jax.parallel.operations import Products, kernels, products
from lesa_jax.parallel.targets import PREALLOCATED, Target, parse_target, prepare_compilers, target_devices
from lesa_jax.training.cost import step_bytes
from lesa_jax.training.job import TrainJob, make_train_job
from lesa_jax.training.lowering import trace_step
from lesa_jax.training.peaks import peak_of
from lesa_jax.training.result import TrainResult, describe
from lesa_jax.training.settings import Remat, TrainSettings

REMATS: tuple[Remat, ...] = get_args(Remat)


@dataclass(frozen=True)
class CompiledStep:
    """A step on a target.

    Attributes:
      target: the hardware.
      run: sizes and operations of the run.
      sequences, tokens: of a step, over all chips.
      remat: what the backward pass computes again.
      kept: bytes on one chip that layers keep for the backward pass, by each rule that --remat knows.
      parts: bytes on one chip by what they are for; `rest` is what the compiler takes beyond what is known.
      total: bytes that the compiler needs on one chip; None if it refused and did not say.
      collectives: what chips send each other in a step; () if it refused.
      kernels: that are no work of XLA's own, with their runs in a step.
      products: operations of the program's matrix products on one chip, beside those kernels.
      floor_seconds: of a step, if nothing else took time than operations, memory or network, by the data sheet.
      most_sequences: of the largest batch that fits, estimated from the memory of two or three; None if not asked for.
      seconds: that compiling took.
    """

    target: Target
    run: TrainResult
    sequences: int
    tokens: int
    remat: Remat
    kept: Mapping[str, int]
    parts: Mapping[str, int]
    total: int | None
    collectives: tuple[Collective, ...]
    kernels: Mapping[str, int]
    products: Products
    floor_seconds: Mapping[str, float]
    most_sequences: int | None
    seconds: float

    @property
    def fits(self) -> bool:
        return self.total is not None and self.total <= self.target.chip.memory

    @property
    def preallocated(self) -> bool:
        """Whether it fits into what JAX takes of a GPU unless it is told otherwise."""
        share = PREALLOCATED if self.target.chip.platform == "gpu" else 1.0
        return self.total is not None and self.total <= share * self.target.chip.memory

    def by_kind(self) -> dict[str, dict[str, float]]:
        """Of each kind of collective: places in the program, runs in a step, bytes that one chip sends."""
        return {
            kind: {
                "places": len(own),
                "count": sum(one.times for one in own),
                "bytes": round(sum(one.sent for one in own)),
            }
            for kind in KINDS
            if (own := [one for one in self.collectives if one.kind == kind])
        }

    def per_token(self, operations: int) -> float:
        """A chip's operations in a step as those of all chips for one token."""
        return operations * self.target.chips / self.tokens

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target.name,
            "chips": self.target.chips,
            "fits": self.fits,
            "bytes": {**self.parts, "total": self.total, "limit": round(self.target.chip.memory)},
            "collectives": self.by_kind(),
            "kernels": dict(self.kernels),
            "no_kernel": self.run.no_kernel,
            "floor_seconds": dict(self.floor_seconds),
            "sequences": self.sequences,
            "tokens": self.tokens,
            "most_sequences": self.most_sequences,
            "remat": self.remat,
            "kept_by_remat": dict(self.kept),
            "operations_per_token": {
                "formula": self.run.cost.total,
                "formula_beside_attention": self.run.cost.total - self.run.cost.attention,
                "products": self.per_token(self.products.once),
                "products_again": self.per_token(self.products.again),
            },
            "compile_seconds": round(self.seconds, 1),
            "versions": {"jax": jax.__version__},
        }


def compile_for(settings: TrainSettings) -> CompiledStep:
    """Compiles the step of `settings` for `settings.compile_for`; see `CompiledStep`.

    Raises:
      InputError: bad options, an unknown target, a missing compiler.
    """
    assert settings.compile_for is not None
    target = parse_target(settings.compile_for)
    prepare_compilers()
    devices = target_devices(target)
    step = compiled_step(settings, target, devices)
    step = replace(step, most_sequences=most_sequences(settings, step, devices))
    if settings.report is not None:
        write_json(settings.report, step.to_json())
    return step


def compiled_step(settings: TrainSettings, target: Target, devices: Sequence[Any]) -> CompiledStep:
    """One compilation, without the largest batch."""
    job = make_train_job(settings, devices)
    started = time.monotonic()
    traced = {remat: trace_step(replace(job, program=replace(job.program, remat=remat))) for remat in REMATS}
    kept = {remat: kept_bytes(step.jaxpr, job) for remat, step in traced.items()}
    remat = settings.devices.remat
    found = compile_traced(traced[remat], settings, target)
    run, sent = describe(job), collectives(found.program)
    return CompiledStep(
        target=target,
        run=run,
        sequences=settings.batch.batch_size,
        tokens=job.step_tokens,
        remat=remat,
        kept=kept,
        parts=memory_parts(run, kept[remat], found.total),
        total=found.total,
        collectives=sent,
        kernels=kernels(found.program),
        products=products(found.program),
        floor_seconds=floors(job, run, target, sent),
        most_sequences=None,
        seconds=time.monotonic() - started,
    )


def compile_traced(traced: Any, settings: TrainSettings, target: Target) -> Compilation:
    """The compiler's word on a step that was traced; says on stderr that it is asked."""
    print(f"compiling for {target.name} ({settings.batch.batch_size} sequences) ...", file=sys.stderr, flush=True)
    return compile_lowered(traced.lower(), target)


def memory_parts(run: TrainResult, kept: int, total: int | None) -> dict[str, int]:
    """Bytes of one chip by what they are for."""
    memory = run.memory
    parts = {
        "frozen": memory.frozen,
        "trained": memory.trained,
        "moments": memory.moments,
        "average": memory.average,
        "gradient": memory.gradient,
        "activations": kept,
    }
    if total is not None:
        parts["rest"] = total - sum(parts.values())
    return parts


def kept_bytes(jaxpr: Any, job: TrainJob) -> int:
    """What the scans over layers keep for their backward passes on one chip, which are shares of sequences."""
    kept = sum(math.prod(shape.shape) * shape.dtype.itemsize for shape in kept_arrays(jaxpr.jaxpr))
    return kept // row_shares(job.mesh.shape)


def kept_arrays(jaxpr: Any) -> Iterator[Any]:
    """What forward scans stack up, in a jaxpr and those inside it; a scan over parts of a batch stacks up nothing."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            if equation.params["reverse"]:
                continue
            if stacked := equation.outvars[equation.params["num_carry"] :]:
                yield from (variable.aval for variable in stacked)
                continue
        for inner in jaxprs_in_params(equation.params):
            yield from kept_arrays(inner)


def floors(job: TrainJob, run: TrainResult, target: Target, sent: Sequence[Collective]) -> dict[str, float]:
    """Seconds of a step at least, by each of the three things that a chip does."""
    peak = peak_of(target.chip.kind)
    assert peak is not None
    return {
        "compute": run.cost.total * job.step_tokens / (peak * target.chips),
        "memory": step_bytes(job.config, job.leaves, job.shardings, job.frozen_dtype) / target.chip.bandwidth,
        "network": sum(one.sent for one in sent) / target.network,
    }


def most_sequences(settings: TrainSettings, step: CompiledStep, devices: Sequence[Any]) -> int | None:
    """The largest batch that fits, from the memory that batches need whose memory is known.

    These are this one, one of half or twice as many sequences, and then the one that a straight line through them takes
    for the largest: what depends on the batch grows in proportion to it only where it decides, which small batches do
    not show. None where the compiler did not say, or where more sequences do not need more.
    """
    least = row_shares(parse_mesh(settings.devices.mesh, len(devices))) * settings.batch.accumulate
    other = 2 * step.sequences if step.sequences == least else max(least, step.sequences // 2 // least * least)

    def needed_by(sequences: int) -> int | None:
        other_batch = replace(settings, batch=replace(settings.batch, batch_size=sequences))
        return compile_traced(trace_step(make_train_job(other_batch, devices)), other_batch, step.target).total

    known = {step.sequences: step.total, other: needed_by(other)}
    guess = largest(known, step.target.chip.memory, least)
    if guess and guess not in known:
        known[guess] = needed_by(guess)
    return largest(known, step.target.chip.memory, least)


def largest(known: Mapping[int, int | None], limit: float, least: int) -> int | None:
    """The multiple of `least` that fits into `limit` bytes, by the line through the two of `known` nearest to it."""
    sizes = sorted((total, sequences) for sequences, total in known.items() if total is not None)
    near = sorted(sizes, key=lambda size: abs(size[0] - limit))[:2]
    if len(near) < 2 or near[0][0] == near[1][0]:
        return None
    (first, fewer), (second, more) = sorted(near)
    if more < fewer:
        return None
    return max(0, math.floor((fewer + (limit - first) * (more - fewer) / (second - first)) / least) * least)
