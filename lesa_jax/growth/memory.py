"""The memory that an expansion takes, known before it begins, and what goes to the disk where that is too much.

Layers are read one by one, so that only two things grow with a model: what LESA keeps of all layers of a kind, its rows
V, and what other methods are shown. Both go to a scratch file where they do not fit.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lesa_jax.base.errors import InputError
from lesa_jax.base.machine import free_memory
from lesa_jax.base.units import format_bytes, parse_bytes
from lesa_jax.checkpoint.format import DTYPES
from lesa_jax.families.kinds import WeightKind
from lesa_jax.planning.methods import Aligned, Lesa, PredictorSettings, Start

PROGRAM = 450_000_000  # bytes of Python, JAX and the programs that it compiles
SHARE = 0.75  # of what is free is taken by default
BATCHES = 4 << 25  # bytes of batches that are laid out, on their way, or trained on


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes.

    Attributes:
      peak: the most that will be in memory at a time.
      room: what of it arrays of all layers may take.
      scratch: the most that will be on the disk meanwhile, besides the output.
    """

    peak: int
    room: int
    scratch: int


def plan_memory(
    start: Start, settings: PredictorSettings, kinds: Iterable[WeightKind], memory: str | None
) -> MemoryPlan:
    """What goes where.

    Args:
      start: what makes new layers.
      settings: of the predictor, if it is LESA.
      kinds: that are computed.
      memory: what may be taken, as the user wrote it; by default three quarters of what is free.

    Raises:
      InputError: it is less than is needed with all rows on the disk.
    """
    kinds = list(kinds)
    given = int(SHARE * free_memory()) if memory is None else parse_bytes("--memory", memory)
    if not kinds:
        return MemoryPlan(0, given, 0)
    working = {kind: working_memory(kind, start, settings) for kind in kinds}
    least = PROGRAM + max(working.values())
    if least > given:
        there = f"this machine has {format_bytes(given)} free for it" if memory is None else f"--memory is {memory}"
        if isinstance(start, Lesa):
            refuse_predictor(kinds, settings, given, there)
        raise InputError(
            f"the new layers take at least {format_bytes(least)} of memory to compute, {there}; take a method that "
            "copies, such as --method llama_pro, or a larger machine"
        )
    room = given - least
    kept = {kind: kept_memory(kind, start) for kind in kinds}
    peak = max(working[kind] + (kept[kind] if kept[kind] <= room else 0) for kind in kinds)
    return MemoryPlan(PROGRAM + peak, room, max([nbytes for nbytes in kept.values() if nbytes > room], default=0))


def refuse_predictor(kinds: Iterable[WeightKind], settings: PredictorSettings, given: int, there: str) -> None:
    """Raises InputError where it is LESA's predictor alone that does not fit."""
    predictor = max(predictor_memory(kind, settings) for kind in kinds)
    if predictor > given:
        raise InputError(
            f"--hidden-size {settings.hidden_size}, --batch-size {settings.batch_size}, --epochs {settings.epochs}: "
            f"the predictor takes about {format_bytes(predictor)} of memory, {there}; choose smaller ones"
        )


def kept_memory(kind: WeightKind, start: Start) -> int:
    """Bytes of what is kept of all layers of a kind: LESA's rows in float32, for others the matrices as they are."""
    if isinstance(start, Lesa):
        layers, out, fan_in = kind.shape
        return 4 * layers * min(out, layers * fan_in) * fan_in
    return math.prod(kind.shape) * DTYPES[kind.stack.spec.dtype].itemsize * (1 + len(kind.beside))


def working_memory(kind: WeightKind, start: Start, settings: PredictorSettings) -> int:
    """Bytes at the worst moment of a kind's work, besides what is kept of all layers.

    A few layers as they are in the file and in float32; with LESA the Gram matrix, of which LAPACK wants three times
    the size, beside U; the predictor; with alignment a plan and its copies.
    """
    out, stored = kind.shape[1], math.prod(kind.shape[1:]) * DTYPES[kind.stack.spec.dtype].itemsize
    block, square = 4 * math.prod(kind.shape[1:]), 4 * out * out
    if not isinstance(start, Lesa):
        return 3 * stored + 5 * block + (3 * square if isinstance(start, Aligned) else 0)
    if start.space == "raw":
        square = 0
    projecting = square + 3 * stored + 3 * block
    training = square + predictor_memory(kind, settings) + BATCHES
    return max(4 * square, projecting, training, square + 6 * block)


def predictor_memory(kind: WeightKind, settings: PredictorSettings) -> int:
    """Bytes of a predictor in training: weights, gradient, two moments and their next values, and the samples' order.

    Args:
      kind: whose rows it predicts.
      settings: its width, its batches and epochs.
    """
    layers, out, fan_in = kind.shape
    weights = settings.hidden_size * (3 * fan_in + settings.hidden_size + 2) + fan_in
    activations = settings.batch_size * 2 * (3 * fan_in + 2 * settings.hidden_size)
    samples = settings.epochs * max(out * (layers - 2), settings.batch_size)
    return 4 * (6 * weights + activations + 4 * samples)
