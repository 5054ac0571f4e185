"""New matrices of one kind of weight, for all grown models at once: read once, decomposed once, learned once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from lesa_jax.base.errors import InputError
from lesa_jax.growth.weights import BATCH_BYTES
from lesa_jax.initializers.lesa.predict import (
    Basis,
    decompose,
    decompose_together,
    learn,
    learn_together,
    one_of,
    predict_matrices,
)
from lesa_jax.initializers.lesa.predictor import Fit
from lesa_jax.planning.methods import PUBLISHED, Aligned, Formula, Lesa, PredictorSettings, Start

Weights: TypeAlias = Float[np.ndarray | Array, "layers ..."]  # of one kind: matrices [out, in], or vectors


@dataclass(frozen=True)
class Request:
    """The new matrices that one grown model wants of a kind.

    Attributes:
      start: what makes them; no copies, which need no kind as a whole.
      gaps: one for each new matrix, ascending, counted from the first layer that has the kind.
      seed: of everything random.
      predictor: how LESA's is trained.
      method: name of the method, for messages.
    """

    start: Start
    gaps: tuple[int, ...]
    seed: int = 0
    predictor: PredictorSettings = PUBLISHED
    method: str = ""


@dataclass(frozen=True)
class NewMatrices:
    """What one request got, float32; of LESA's predictor how it was trained, and how far its predictions of layers that
    exist agree with them (`predict.Prediction`); or no matrix, and why.
    """

    weights: Float[Array, "new ..."]
    fit: Fit | None = None
    agreement: Float[Array, ""] | None = None
    failure: InputError | None = None


class OldMatrices:
    """The matrices of all layers of one kind, any float dtype, in memory until their last user takes them.

    Attributes:
      name: what is random about the kind depends on it, so that it does not depend on which other kinds there are.
      norm: mean Frobenius norm over the layers.
      beside: reads the matrices whose rows are neurons of these, for initialisers that ask for them.
    """

    def __init__(self, name: str, weights: Weights, norm: float, beside: Callable[[], Mapping[str, Weights]] = dict):
        self.name, self.norm, self.beside = name, norm, beside
        self._weights: Weights | None = weights

    @property
    def weights(self) -> Weights:
        """The matrices, still to be used by others.

        Raises:
          ValueError: they have been taken.
        """
        if self._weights is None:
            raise ValueError(f"{self.name}: its matrices have been taken")
        return self._weights

    def take(self) -> Weights:
        """The matrices, for the last time: nobody but the caller keeps them, who may work in their memory."""
        weights = self.weights
        self._weights = None
        return weights

    def key(self, seed: int) -> PRNGKeyArray:
        return jax.random.fold_in(jax.random.key(seed), crc32(self.name.encode()))


# LESA's predictor depends on these: requests that share them share its training, wherever their layers go.
Lesson: TypeAlias = tuple[Lesa, int, PredictorSettings]


def batch_bytes(device: Any = None) -> int:
    """How many bytes of float32 weights may be worked out together.

    On a device of its own memory a quarter of that: the rows that all predictors learn from lie there once, the
    shuffled control's twice, one kind's original and its new matrices beside them.
    """
    stats = (device or jax.local_devices()[0]).memory_stats() or {}  # None on a CPU
    return max(BATCH_BYTES, stats.get("bytes_limit", 0) // 4)


def compute_matrices(
    kinds: Iterable[OldMatrices], requests: Sequence[Request]
) -> Iterator[tuple[OldMatrices, list[NewMatrices]]]:
    """Each kind, in order, and what each request gets of it; kinds of one shape. Takes the kinds' matrices.

    On a CPU the kinds are read and worked out one after the other, so that an iterator of kinds keeps one in memory.
    Elsewhere all kinds train at once, in one vmapped loop for each predictor. Which kinds and requests come together
    changes no result beyond rounding, and on a CPU not a bit.

    Raises:
      InputError: fewer layers than LESA needs, or a gap that does not exist.
    """
    one_by_one = jax.default_backend() == "cpu"
    kinds = iter(kinds)
    while batch := list(islice(kinds, 1) if one_by_one else kinds):
        yield from _compute_batch(batch, requests, together=len(batch) > 1)
        del batch  # before the next is read


def _compute_batch(
    kinds: list[OldMatrices], requests: Sequence[Request], together: bool
) -> Iterator[tuple[OldMatrices, list[NewMatrices]]]:
    computed: dict[tuple[int, int], NewMatrices] = {}
    for i, request in enumerate(requests):
        if isinstance(request.start, Formula):
            for k, kind in enumerate(kinds):
                computed[k, i] = _apply(request.start, kind, request)
    # The last space may work in the weights' own memory: none is kept while its predictors train.
    spaces = sorted({request.start.space for request in requests if isinstance(request.start, Lesa)}, reverse=True)
    for space in spaces:
        weights = (kind.take() if space == spaces[-1] else kind.weights for kind in kinds)
        basis = decompose_together(weights, len(kinds), space) if together else decompose(next(weights), space)
        computed |= _predict(kinds, basis, space, requests, together)
        del basis  # before the next space's
    for k, kind in enumerate(kinds):
        yield kind, [computed.pop((k, i)) for i in range(len(requests))]


def _apply(formula: Formula, kind: OldMatrices, request: Request) -> NewMatrices:
    """What a function makes of a kind; whatever it does wrong, which may be anybody's, fails this request alone."""
    weights = kind.weights
    if isinstance(weights, np.ndarray):  # others read them, too
        weights = weights.view()
        weights.flags.writeable = False
    name, expected = f"method {request.method}: its initialiser", (len(request.gaps), *weights.shape[1:])
    try:
        beside = kind.beside() if isinstance(formula, Aligned) else {}
        new = formula.function(weights, request.gaps, kind.key(request.seed), **beside)
        new = jnp.asarray(new if isinstance(new, jax.Array) else np.array(new))  # no view of what others work on
        if not jnp.issubdtype(new.dtype, jnp.floating) and not jnp.issubdtype(new.dtype, jnp.integer):
            raise InputError(f"{name} gave numbers of dtype {new.dtype}; return floating-point numbers")
        if new.shape != expected:
            raise InputError(f"{name} gave shape {new.shape}; return {expected}, a matrix for each new layer")
        return NewMatrices(new.astype(jnp.float32))
    except Exception as error:
        failure = error if isinstance(error, InputError) else raised(name, error)
        return NewMatrices(jnp.zeros((0, *weights.shape[1:])), failure=failure)


def raised(name: str, error: Exception) -> InputError:
    """What the user is told of an error in a function that is not this program's."""
    failure = InputError(f"{name} raised {type(error).__name__}: {' '.join(str(error).split())}")
    failure.__cause__ = error
    return failure


def _predict(
    kinds: Sequence[OldMatrices], basis: Basis, space: str, requests: Sequence[Request], together: bool
) -> dict[tuple[int, int], NewMatrices]:
    """What requests in this space get, by kind and request."""
    fits: dict[Lesson, list[Fit]] = {}
    predicted = {}
    for i, request in enumerate(requests):
        if isinstance(request.start, Lesa) and request.start.space == space:
            # How loud predictions will be, and whose they are, is no matter of learning.
            lesson = replace(request.start, shrunk=False, matched=False), request.seed, request.predictor
            if lesson not in fits:
                fits[lesson] = _learn([kind.key(request.seed) for kind in kinds], basis, lesson, together)
            for k, fit in enumerate(fits[lesson]):
                one = one_of(basis, k) if together else basis
                prediction = predict_matrices(one, fit, request.gaps)
                predicted[k, i] = NewMatrices(prediction.weights, fit, prediction.agreement)
    return predicted


def _learn(keys: Sequence[PRNGKeyArray], basis: Basis, lesson: Lesson, together: bool) -> list[Fit]:
    lesa, _, settings = lesson
    return learn_together(basis, keys, lesa, settings) if together else [learn(basis, keys[0], lesa, settings)]
