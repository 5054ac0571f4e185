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
from lesa_jax.planning.ranks import kept_rank, searched

PROGRAM = 400_000_000  # bytes of Python, JAX and the programs that it compiles
SHARE = 0.75  # of what is free is taken by default
BATCHES = 2 << 25  # bytes of batches that are laid out or trained on


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
    peak = scratch = 0
    for kind in kinds:
        for arrays in kept_arrays(kind, start, settings):
            here, there = divide(arrays, room)
            peak, scratch = max(peak, working[kind] + here), max(scratch, there)
    return MemoryPlan(PROGRAM + peak, room, scratch)


def divide(arrays: Iterable[int], room: int) -> tuple[int, int]:
    """Bytes of arrays that are in memory, and of those that are not, as `base.scratch.Scratch` puts them."""
    here = there = 0
    for nbytes in arrays:
        if here + nbytes <= room:
            here += nbytes
        else:
            there += nbytes
    return here, there


def refuse_predictor(kinds: Iterable[WeightKind], settings: PredictorSettings, given: int, there: str) -> None:
    """Raises InputError where it is LESA's predictor alone that does not fit."""
    predictor = max(predictor_memory(kind, settings) for kind in kinds)
    if predictor > given:
        raise InputError(
            f"--hidden-size {settings.hidden_size}, --batch-size {settings.batch_size}, --epochs {settings.epochs}: "
            f"the predictor takes about {format_bytes(predictor)} of memory, {there}; choose smaller ones"
        )


def kept_arrays(kind: WeightKind, start: Start, settings: PredictorSettings) -> list[list[int]]:
    """Bytes of the arrays that wait for their turn while a kind is worked on, at one time and at another.

    With LESA U, while it is refined, and later the rows of all layers in float32; else the matrices of all layers as
    they are, and those beside them.
    """
    if isinstance(start, Lesa):
        layers, _, fan_in = kind.shape
        if start.space == "raw":
            return [[4 * math.prod(kind.shape)]]
        rank, size, _ = directions(kind, settings)
        return [[4 * size * size], [4 * layers * rank * fan_in]]
    count = 1 + len(kind.beside) if isinstance(start, Aligned) else 1
    return [count * [math.prod(kind.shape) * DTYPES[kind.stack.spec.dtype].itemsize]]


def working_memory(kind: WeightKind, start: Start, settings: PredictorSettings) -> int:
    """Bytes at the worst moment of a kind's work, besides what is kept of all layers.

    A few layers as they are in the file and in float32; with LESA the Gram matrix, of which LAPACK wants three times
    the size; the predictor; with alignment a plan and its copies.
    """
    out, stored = kind.shape[1], math.prod(kind.shape[1:]) * DTYPES[kind.stack.spec.dtype].itemsize
    block, square = 4 * math.prod(kind.shape[1:]), 4 * out * out
    if not isinstance(start, Lesa):
        return 3 * stored + 5 * block + (3 * square if isinstance(start, Aligned) else 0)
    training = predictor_memory(kind, settings) + BATCHES
    if start.space == "raw":
        return max(3 * stored + 3 * block, training, 6 * block)
    rank, size, basis = directions(kind, settings)
    u, square, rows = 4 * out * rank, 4 * size * size, 4 * rank * kind.shape[2]
    projecting = u + basis + 3 * stored + 2 * block + rows
    return max(basis + 3 * square, projecting, u + training, u + 4 * rows + 2 * block)


def directions(kind: WeightKind, settings: PredictorSettings) -> tuple[int, int, int]:
    """How many singular directions are kept of a kind, in how many they are found, and the bytes of what finds those: a
    sketch, its orthonormal basis and what a QR decomposition takes besides.
    """
    rank, size = kept_rank(kind.shape, settings.rank), searched(kind.shape, settings.rank)
    if size is None:
        return rank, kind.shape[1], 0
    return rank, size, 4 * 4 * size * kind.shape[1]


def predictor_memory(kind: WeightKind, settings: PredictorSettings) -> int:
    """Bytes of a predictor in training: weights, gradient, two moments and one more of these while they are made, and
    the samples' order.

    Args:
      kind: whose rows it predicts.
      settings: its width, its batches and epochs.
    """
    layers, _, fan_in = kind.shape
    rows = kept_rank(kind.shape, settings.rank)
    weights = settings.hidden_size * (3 * fan_in + settings.hidden_size + 2) + fan_in
    activations = settings.batch_size * 2 * (3 * fan_in + 2 * settings.hidden_size)
    samples = settings.epochs * max(rows * (layers - 2), settings.batch_size)
    return 4 * (5 * weights + activations + 4 * samples)
