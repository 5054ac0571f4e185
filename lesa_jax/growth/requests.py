"""What grown models want of a kind of weight, worked out together: read once, decomposed once, learned once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from lesa_jax.initializers.lesa.predict import Basis, decompose, learn, learn_together, predict_matrices
from lesa_jax.initializers.lesa.predictor import PUBLISHED, Fit, PredictorSettings
from lesa_jax.planning.methods import Initialiser, Lesa


@dataclass(frozen=True)
class Order:
    """The new matrices that one grown model wants of every kind.

    Attributes:
      initialiser: what makes them.
      gaps: one for each new matrix, ascending, counted from the first layer that has the kind.
      seed: of everything random.
      settings: of LESA's predictor.
    """

    initialiser: Lesa | Initialiser
    gaps: tuple[int, ...]
    seed: int = 0
    settings: PredictorSettings = PUBLISHED

    @property
    def predictor(self) -> tuple[Lesa, int, PredictorSettings]:
        """What LESA's predictor depends on: orders that share this share the predictor, wherever their layers go."""
        assert isinstance(self.initialiser, Lesa)
        return self.initialiser, self.seed, self.settings


@dataclass(frozen=True)
class NewMatrices:
    """What one order got of one kind, float32, and how LESA's predictor was trained."""

    weights: Float[Array, "new out in"]
    fit: Fit | None = None


@dataclass(frozen=True)
class NamedKind:
    """The matrices of all layers of one kind, in any float dtype."""

    name: str
    weights: Float[np.ndarray | Array, "layers out in"]


def kind_key(seed: int, name: str) -> PRNGKeyArray:
    """For what is random about a kind; of its name, so that it does not depend on which other kinds there are."""
    return jax.random.fold_in(jax.random.key(seed), crc32(name.encode()))


def fill_orders(kinds: Iterable[NamedKind], orders: Sequence[Order]) -> Iterator[list[NewMatrices]]:
    """For each kind, in order, what each order gets; kinds of one shape.

    On a CPU the kinds are taken and worked out one after the other, so that an iterator of kinds keeps one in memory.
    Elsewhere all kinds train at once, in one vmapped loop for each predictor. Which kinds and orders come together
    changes no result beyond rounding, and on a CPU not a bit.

    Raises:
      InputError: fewer layers than LESA needs, or a gap that does not exist.
    """
    together = jax.default_backend() != "cpu"
    kinds = iter(kinds)
    while batch := list(kinds if together else islice(kinds, 1)):
        yield from _fill(batch, orders, together)


def _fill(kinds: list[NamedKind], orders: Sequence[Order], together: bool) -> Iterator[list[NewMatrices]]:
    """Empties `kinds`: no name holds a kind's weights any longer than they are needed."""
    names = [kind.name for kind in kinds]
    weights = [kind.weights for kind in kinds]
    kinds.clear()
    filled: dict[tuple[int, int], NewMatrices] = {}
    for i, order in enumerate(orders):
        if not isinstance(order.initialiser, Lesa):
            for k, name in enumerate(names):
                new = order.initialiser(weights[k], order.gaps, kind_key(order.seed, name))
                filled[k, i] = NewMatrices(jnp.asarray(new, jnp.float32))
    spaces = sorted({order.initialiser.space for order in orders if isinstance(order.initialiser, Lesa)})
    while spaces:
        space = spaces.pop()
        # The last space may have the weights themselves: no name here keeps them while its predictors train.
        given = list(weights)
        if not spaces:
            weights.clear()
        filled |= _predict(names, given, space, orders, together)
    for k in range(len(names)):
        yield [filled.pop((k, i)) for i in range(len(orders))]


def _predict(
    names: Sequence[str], weights: list, space: str, orders: Sequence[Order], together: bool
) -> dict[tuple[int, int], NewMatrices]:
    """What LESA's orders in one space get, by kind and order. Empties `weights`; its bases do not outlive it."""
    bases = [decompose(weights.pop(0), space) for _ in names]
    fits: dict[tuple[Lesa, int, PredictorSettings], list[Fit]] = {}
    filled = {}
    for i, order in enumerate(orders):
        if isinstance(order.initialiser, Lesa) and order.initialiser.space == space:
            if order.predictor not in fits:
                fits[order.predictor] = _learn(names, bases, order, together)
            for k, (basis, fit) in enumerate(zip(bases, fits[order.predictor], strict=True)):
                filled[k, i] = NewMatrices(predict_matrices(basis, fit, order.gaps).weights, fit)
    return filled


def _learn(names: Sequence[str], bases: Sequence[Basis], order: Order, together: bool) -> list[Fit]:
    lesa, seed, settings = order.predictor
    keys = [kind_key(seed, name) for name in names]
    if together:
        return learn_together(bases, keys, lesa, settings)
    return [learn(basis, key, lesa, settings) for basis, key in zip(bases, keys, strict=True)]
