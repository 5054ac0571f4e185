"""What grown models ask for of a kind of weight, and what of it they share."""

from dataclasses import dataclass, replace
from typing import TypeAlias

from lesa_jax.planning.methods import PUBLISHED, Lesa, PredictorSettings, Start

# LESA's predictor depends on these: requests that share them share its training, wherever their layers go.
Lesson: TypeAlias = tuple[Lesa, int, PredictorSettings]
# The space of the rows that it predicts, and their number; requests that share these share their decomposition.
Rows: TypeAlias = tuple[str, int | None]


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


def rows_of(request: Request) -> Rows | None:
    """What a request has predicted; None where nothing is."""
    return (request.start.space, request.predictor.rank) if isinstance(request.start, Lesa) else None


def lesson_of(request: Request) -> Lesson | None:
    """What is learned for it. How loud predictions will be, and whose they are, is no matter of learning."""
    if not isinstance(request.start, Lesa):
        return None
    return replace(request.start, shrunk=False, matched=False), request.seed, request.predictor
