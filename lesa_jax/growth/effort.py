"""How much work new matrices are, so that a bar over them moves evenly: operations, roughly."""

from collections.abc import Sequence

from lesa_jax.growth.requests import Lesson, Request, lesson_of, rows_of
from lesa_jax.initializers.lesa.range_finder import ITERATIONS
from lesa_jax.planning.ranks import kept_rank, searched

EIGEN = 18  # n^3: nine operations at half the rate of a matrix product
SKETCHES = 2 * (2 + 2 * ITERATIONS)  # of products with a sketch: one, two an iteration, the layers in the basis


def decompose_effort(shape: tuple[int, ...], space: str, rank: int | None) -> float:
    """Of one kind [layers, out, in]."""
    layers, out, fan_in = shape
    if space == "raw":
        return float(layers * out * fan_in)
    kept, size = kept_rank(shape, rank), searched(shape, rank)
    looking = 0 if size is None else SKETCHES * size * out * layers * fan_in
    size = size or out
    return float(looking + size * size * layers * fan_in + EIGEN * size**3 + 2 * kept * out * layers * fan_in)


def learn_effort(shape: tuple[int, ...], lesson: Lesson) -> float:
    """Of one kind [layers, out, in]: the products of the predictor, and as much again as AdamW reads and writes."""
    layers, _, fan_in = shape
    lesa, _, settings = lesson
    rows = shape[1] if lesa.space == "raw" else kept_rank(shape, settings.rank)
    weights = settings.hidden_size * (3 * fan_in + settings.hidden_size)
    return settings.epochs * max(0, layers - 2) * rows * 6.0 * weights


def effort(shape: tuple[int, ...], requests: Sequence[Request]) -> float:
    """Of all requests for one kind, which share what they can."""
    rows = {rows_of(request) for request in requests} - {None}
    lessons = {lesson_of(request) for request in requests} - {None}
    taken_apart = sum(decompose_effort(shape, *one) for one in rows if one is not None)
    return 1.0 + taken_apart + sum(learn_effort(shape, lesson) for lesson in lessons if lesson is not None)
