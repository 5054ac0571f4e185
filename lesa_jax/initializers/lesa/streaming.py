"""The predictor's training on rows that are not on the device: on a CPU always, elsewhere where they do not fit.

Batches come in the order of `predictor.sample_order`, wherever the rows are, and are laid out by a second thread while
the batches before are trained on. So where rows are kept changes no bit of the result.
"""

import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from lesa_jax.base.background import second_thread
from lesa_jax.initializers.lesa.ahead import Ahead
from lesa_jax.initializers.lesa.layers import Stored, take
from lesa_jax.initializers.lesa.predictor import (
    PUBLISHED,
    Fit,
    PredictorSettings,
    fit_of,
    init_params,
    init_state,
    param_shapes,
    sample_order,
    train_on,
)

AT_ONCE = 1 << 25  # bytes of batches that are laid out together: 11 steps of width 4096, some 0.2 s of a CPU


def fit_streamed(
    v: np.ndarray | Stored,
    kept: Bool[Array, " rows"],
    key: PRNGKeyArray,
    settings: PredictorSettings = PUBLISHED,
    places: Sequence[int] | Int[Array, " layers"] | None = None,
    advance: Callable[[float], None] = lambda share: None,
) -> Fit:
    """`predictor.fit`, up to rounding.

    Args:
      v: rows to predict, [layers, rows, in], at least three layers.
      kept: rows that take part.
      key: seeds the initial weights and the order of samples.
      settings: of the training.
      places: which layer stands at each place; by default they stand in order.
      advance: is called with shares of the work, which add up to 1.
    """
    layers, rows, features = v.shape
    init_key, order_key = jax.random.split(key)
    order, used = map(np.asarray, sample_order(order_key, kept, layers, settings))
    flat, use = order.reshape(-1, order.shape[-1]), used.reshape(-1, used.shape[-1])
    where = np.arange(layers) if places is None else np.asarray(places)
    busy = np.flatnonzero(use[:, 0])  # the others have no sample left, as directions were cut
    batch = (steps_at_once(len(flat), settings.batch_size, features), settings.batch_size)
    at_once = batch[0]
    # Two, in turns: of one the batches are laid out while those of the other are trained on.
    buffers = [(aligned((*batch, 2, features)), aligned((*batch, features)), aligned(batch)) for _ in range(2)]

    def lay_out(first: int) -> tuple[Array, Array, Array]:
        x, y, weight = buffers[first // at_once % 2]
        steps = busy[first : first + at_once]
        place, row = np.divmod(flat[steps], rows)  # sample s is row s + rows of the layers one below the other
        take(v, where[np.stack([place, place + 2], axis=-1)] * rows + row[..., None], x[: len(steps)])
        take(v, where[place + 1] * rows + row, y[: len(steps)])
        weight[: len(steps)] = use[steps]
        return jax.device_put((x.reshape(*batch, 2 * features), y, weight))

    params = init_params(init_key, features, settings)
    state, logs = init_state(params), np.zeros((len(flat), 3), np.float32)
    with second_thread() as reader:
        coming = reader.submit(lay_out, 0)
        for first in range(0, len(busy), at_once):
            batches = coming.result()
            if first + at_once < len(busy):
                coming = reader.submit(lay_out, first + at_once)
            steps = busy[first : first + at_once]
            params, state, log = train_on(
                params, state, *batches, len(steps), settings.norm_weight, settings.learning_rate
            )
            logs[steps] = np.asarray(log)[: len(steps)]
            advance(len(steps) / len(busy))
    return fit_of(params, logs, used)


def aligned(shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """An array of float32 that XLA takes for its own on a CPU, without a copy: it begins at a multiple of 64 bytes."""
    nbytes = 4 * math.prod(shape)
    raw = np.empty(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes].view(np.float32).reshape(shape)


def steps_at_once(steps: int, batch_size: int, features: int) -> int:
    """How many steps' batches are laid out together: what memory allows, or a power of two that holds all steps, so
    that kinds of about as many rows share a program."""
    return min(max(1, AT_ONCE // (4 * 3 * batch_size * features)), 1 << (steps - 1).bit_length())


def streaming_programs(
    v: jax.ShapeDtypeStruct, kept: jax.ShapeDtypeStruct, settings: PredictorSettings = PUBLISHED
) -> list[Ahead]:
    """What `fit_streamed` runs for rows of this shape [layers, rows, in]."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    order, _ = jax.eval_shape(lambda key, kept: sample_order(key, kept, v.shape[0], settings), key, kept)
    at_once = steps_at_once(order.shape[0] * order.shape[1], settings.batch_size, v.shape[2])
    params = param_shapes(v.shape[2], settings)
    batch = at_once, settings.batch_size
    x, y, used = (jax.ShapeDtypeStruct((*batch, *rest), v.dtype) for rest in ((2 * v.shape[2],), (v.shape[2],), ()))
    state = jax.eval_shape(init_state, params)
    return [
        Ahead("predictor's first weights", init_params, (key, v.shape[2], settings)),
        Ahead("order of samples", sample_order, (key, kept, v.shape[0], settings)),
        Ahead(
            "predictor's training",
            train_on,
            (params, state, x, y, used, 0, settings.norm_weight, settings.learning_rate),
        ),
    ]
