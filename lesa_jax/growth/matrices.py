"""New matrices of one kind of weight, for all grown models at once: read once, decomposed once, learned once."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from lesa_jax.base.errors import InputError
from lesa_jax.base.scratch import Scratch
from lesa_jax.base.stages import Meter
from lesa_jax.growth.effort import decompose_effort, learn_effort
from lesa_jax.growth.requests import Lesson, Request, Rows, lesson_of, rows_of
from lesa_jax.growth.weights import BATCH_BYTES
from lesa_jax.initializers.lesa.predict import (
    Basis,
    agreement,
    decompose,
    decompose_together,
    learn,
    learn_together,
    new_matrices,
    one_of,
)
from lesa_jax.initializers.lesa.predictor import Fit
from lesa_jax.initializers.lesa.svd import LayerSVD
from lesa_jax.planning.methods import Aligned, Formula


@dataclass(frozen=True)
class NewMatrices:
    """What one request got of a kind: its new matrices, float32, each made when it is asked for, which may raise
    InputError; and of LESA's predictor how it was trained, its `agreement` with layers that exist, and where not all
    directions were kept, how much of the layers was left out.
    """

    matrices: Iterator[Float[Array, "..."]]
    fit: Fit | None = None
    agreement: Float[Array, ""] | None = None
    left_out: Float[Array, ""] | None = None


class OldMatrices:
    """The matrices, or vectors, of one kind in all layers, any float dtype, read one by one when they are asked for.

    Attributes:
      name: what is random about the kind depends on it, so that it does not depend on which other kinds there are.
      shape: [layers, out, in], or [layers, n].
      dtype: in which they come.
      beside: the kinds whose rows are neurons of this one, for initialisers that ask for them.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: Any,
        read: Callable[[int], np.ndarray],
        beside: Mapping[str, "OldMatrices"] | None = None,
    ):
        self.name, self.shape, self.dtype, self.read, self.beside = name, shape, np.dtype(dtype), read, beside or {}

    def __getitem__(self, layer: int) -> np.ndarray:
        return self.read(layer)

    @functools.cached_property
    def norm(self) -> float:
        """Mean Frobenius norm over the layers."""
        layers = (self.read(layer) for layer in range(self.shape[0]))
        return float(np.mean([np.linalg.norm(matrix.astype(np.float32, copy=False)) for matrix in layers]))

    def all(self, room: Scratch) -> np.ndarray:
        """All of them, not to be written to, as others read them, too."""
        stacked = room.array(self.shape, self.dtype)
        for layer in range(self.shape[0]):
            stacked[layer] = self.read(layer)
        view = stacked.view()
        view.flags.writeable = False
        return view

    def key(self, seed: int) -> PRNGKeyArray:
        return jax.random.fold_in(jax.random.key(seed), crc32(self.name.encode()))


def batch_bytes(device: Any = None) -> int:
    """How many bytes of float32 weights may be worked out together.

    On a device of its own memory a quarter of that: the rows that all predictors learn from lie there once, the
    shuffled control's twice, one kind's original and its new matrices beside them.
    """
    stats = (device or jax.local_devices()[0]).memory_stats() or {}  # None on a CPU
    return max(BATCH_BYTES, stats.get("bytes_limit", 0) // 4)


def streams(nbytes: int) -> bool:
    """Whether rows to predict stay on the host, of a kind with so many bytes of float32: always on a CPU, elsewhere
    where they do not fit on the device."""
    return jax.default_backend() == "cpu" or nbytes > batch_bytes()


def compute_matrices(
    kinds: Sequence[OldMatrices], requests: Sequence[Request], room: Scratch, meter: Meter
) -> Iterator[tuple[int, int, NewMatrices]]:
    """The numbers of a kind and of a request, and what this request gets of that kind, for all of them.

    Kinds are of one shape. Each result is to be used before the next is asked for. On a CPU the kinds are worked out
    one after the other. Elsewhere all train at once, in one vmapped loop for each predictor, while they fit. Which
    kinds and requests come together changes no result beyond rounding, and on a CPU not a bit; where `room` puts rows
    changes none anywhere. `meter` is told of stages and of `effort`.

    Raises:
      InputError: fewer layers than LESA needs, or a gap that does not exist.
    """
    if streams(4 * math.prod(kinds[0].shape)):
        for number, kind in enumerate(kinds):
            yield from ((number, i, new) for _, i, new in _compute([kind], requests, room, meter, streamed=True))
    else:
        yield from _compute(kinds, requests, room, meter, streamed=False)


def _compute(
    kinds: Sequence[OldMatrices],
    requests: Sequence[Request],
    room: Scratch,
    meter: Meter,
    streamed: bool,
) -> Iterator[tuple[int, int, NewMatrices]]:
    formulas = [(i, request, one) for i, request in enumerate(requests) if isinstance(one := request.start, Formula)]
    for k, kind in enumerate(kinds if formulas else ()):
        weights = kind.all(room)
        beside: dict[str, np.ndarray] = {}
        if any(isinstance(formula, Aligned) for _, _, formula in formulas):
            beside = {side: other.all(room) for side, other in kind.beside.items()}
        for i, request, formula in formulas:
            shown = beside if isinstance(formula, Aligned) else {}
            yield k, i, NewMatrices(_apply(formula, weights, shown, kind.key(request.seed), request))
        del weights, beside
    for rows in dict.fromkeys(map(rows_of, requests)):
        if rows is None:
            continue
        space, rank = rows
        with meter.stage("decompose"):
            if streamed:
                basis = decompose(kinds[0], space, room, rank)
            elif len(kinds) > 1:
                basis = decompose_together(kinds, len(kinds), space, rank)
            else:
                basis = decompose(kinds[0], space, rank=rank)
        meter.advance(len(kinds) * decompose_effort(kinds[0].shape, space, rank))
        yield from _predict(kinds, basis, rows, requests, meter)
        del basis  # before the next one


def _apply(
    formula: Formula, weights: np.ndarray, beside: Mapping[str, np.ndarray], key: PRNGKeyArray, request: Request
) -> Iterator[Float[Array, "..."]]:
    """What a function makes of a kind, gap by gap; whatever it does wrong, which may be anybody's, is an InputError."""
    name = f"method {request.method}: its initialiser"
    for gap, count in Counter(request.gaps).items():
        expected = (count, *weights.shape[1:])
        try:
            new = formula.function(weights, (gap,) * count, jax.random.fold_in(key, gap), **beside)
            new = jnp.asarray(new if isinstance(new, jax.Array) else np.array(new))  # no view of what others read
        except Exception as error:
            raise (error if isinstance(error, InputError) else raised(name, error)) from error
        if not jnp.issubdtype(new.dtype, jnp.floating) and not jnp.issubdtype(new.dtype, jnp.integer):
            raise InputError(f"{name} gave numbers of dtype {new.dtype}; return floating-point numbers")
        if new.shape != expected:
            raise InputError(f"{name} gave shape {new.shape}; return {expected}, a matrix for each new layer")
        yield from new.astype(jnp.float32)


def raised(name: str, error: Exception) -> InputError:
    """What the user is told of an error in a function that is not this program's."""
    failure = InputError(f"{name} raised {type(error).__name__}: {' '.join(str(error).split())}")
    failure.__cause__ = error
    return failure


def _predict(
    kinds: Sequence[OldMatrices], basis: Basis, rows: Rows, requests: Sequence[Request], meter: Meter
) -> Iterator[tuple[int, int, NewMatrices]]:
    """What requests for such rows get, by kind and request."""

    def basis_of(k: int) -> Basis:
        return basis if len(kinds) == 1 else one_of(basis, k)

    fits: dict[Lesson, list[tuple[Fit, Float[Array, ""]]]] = {}
    for i, request in enumerate(requests):
        lesson = lesson_of(request)
        if lesson is None or rows_of(request) != rows:
            continue
        if lesson not in fits:
            whole = len(kinds) * learn_effort(kinds[0].shape, lesson)
            with meter.stage("learn"):
                keys = [kind.key(request.seed) for kind in kinds]
                found = _learn(keys, basis, lesson, lambda share, whole=whole: meter.advance(share * whole))
            fits[lesson] = [(fit, agreement(basis_of(k), fit.params)) for k, fit in enumerate(found)]
        for k, (fit, agreeing) in enumerate(fits[lesson]):
            one = basis_of(k)
            left_out = one.error if isinstance(one, LayerSVD) else None
            yield k, i, NewMatrices(new_matrices(one, fit.params, request.gaps), fit, agreeing, left_out)


def _learn(keys: Sequence[PRNGKeyArray], basis: Basis, lesson: Lesson, advance: Callable[[float], None]) -> list[Fit]:
    lesa, _, settings = lesson
    if len(keys) == 1:
        return [learn(basis, keys[0], lesa, settings, advance)]
    found = learn_together(basis, keys, lesa, settings)
    advance(1.0)
    return found
