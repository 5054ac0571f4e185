"""New layers by LESA for a whole checkpoint: one weight kind after the other is read, predicted, written, forgotten."""

import ctypes
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from zlib import crc32

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray
from rich.progress import Progress

from lesa_jax.checkpoint import DTYPES, Checkpoint, read, release
from lesa_jax.errors import InputError
from lesa_jax.initializers.lesa import Prediction, Space, compile_predict_layers, predict_layers
from lesa_jax.predictor import PredictorSettings
from lesa_jax.recipe import Part, WeightKind, is_transposed, kind_name, kind_pages, weight_kinds
from lesa_jax.report import KindReport
from lesa_jax.writer import TensorWriter


def predict_new_layers(
    checkpoint: Checkpoint,
    predicted: list[Part],
    settings: PredictorSettings,
    space: Space,
    seed: int,
    writer: TensorWriter,
    progress: Progress,
) -> dict[str, KindReport]:
    """Predicts and writes new layers' matrices, one weight kind after the other.

    Args:
      checkpoint: the original.
      predicted: the parts that are made by prediction.
      settings: of the predictor.
      space: "svd" or "raw", see `initializers.lesa`.
      seed: each kind derives its own initial weights and sample order from this and its name, so that its result does
        not depend on which other kinds the checkpoint has.
      writer: receives every part.
      progress: gets a bar over weight kinds.

    Returns:
      Norms and losses by kind, experts averaged.

    Raises:
      InputError: a prediction that is not finite.
    """
    parts: dict[WeightKind, list[Part]] = {}
    for part in predicted:
        parts.setdefault((part.stack, part.numbers[1:]), []).append(part)
    bar = progress.add_task("weight kinds", total=len(parts), note="")
    measured: dict[str, list[tuple[float, float, float]]] = {}
    batches = weight_kinds(predicted)
    with ThreadPoolExecutor(1) as compiler:
        for n, batch in enumerate(batches):
            gaps = gaps_of(predicted, batch[0])
            keys = [matrix_key(seed, kind, page) for kind in batch for page in range(kind_pages(kind[0]))]
            old_norms: list[float] = []  # filled when the weights are read
            weights = chain.from_iterable(kind_matrices(checkpoint, kind, old_norms) for kind in batch)
            predictions = predict_layers(weights, keys, gaps, settings, space)
            following = batches[n + 1 : n + 2]
            for kind in batch:
                name = kind_name(kind[0])
                progress.update(bar, note=name)
                pages = []
                for _ in range(kind_pages(kind[0])):
                    prediction = next(predictions)  # comes as soon as its training is under way
                    while following:  # once
                        compiler.submit(compile_batch, checkpoint, predicted, settings, space, following.pop())
                    pages.append(wait(prediction))
                new_norm = write_matrices(checkpoint, parts[kind], [np.asarray(page.weights) for page in pages], writer)
                loss = float(np.mean([float(page.fit.epoch_losses[-1]) for page in pages]))
                measured.setdefault(name, []).append((float(np.mean(old_norms[: len(pages)])), new_norm, loss))
                del old_norms[: len(pages)], pages, prediction
                progress.advance(bar)
    return {name: KindReport(*np.mean(rows, axis=0).tolist()) for name, rows in measured.items()}


def compile_batch(
    checkpoint: Checkpoint, predicted: list[Part], settings: PredictorSettings, space: Space, batch: list[WeightKind]
) -> None:
    """Compiles what `predict_new_layers` will run for this batch of weight kinds."""
    if jax.default_backend() == "cpu":  # elsewhere a batch is one program of its own
        stack = batch[0][0]
        out, fan_in = stack.kind.shape[-2:]
        if is_transposed(checkpoint, stack):
            out, fan_in = fan_in, out
        shape = (stack.sizes[0], out, fan_in)
        gaps = gaps_of(predicted, batch[0])
        compile_predict_layers(shape, DTYPES[stack.kind.dtype], gaps, settings, space)


def gaps_of(predicted: list[Part], kind: WeightKind) -> list[int]:
    """The gaps that get a new matrix of this kind, counted from the first layer that has the kind."""
    return [part.numbers[0] - part.stack.starts[0] for part in predicted if (part.stack, part.numbers[1:]) == kind]


def wait(prediction: Prediction) -> Prediction:
    """Waits for a computation in a way that Ctrl-C can end, which blocking inside XLA is not."""
    while not prediction.weights.is_ready():  # pyright: ignore[reportAttributeAccessIssue]
        time.sleep(0.01)
    return prediction


def matrix_key(seed: int, kind: WeightKind, page: int) -> PRNGKeyArray:
    """The random key of one predictor, from the seed and the name of what it predicts."""
    stack, inner = kind
    name = f"{stack.template} {inner} {page}"
    return jax.random.fold_in(jax.random.key(seed), crc32(name.encode()))


def kind_matrices(
    checkpoint: Checkpoint, kind: WeightKind, norms: list[float]
) -> Iterator[Float[np.ndarray, "layers out in"]]:
    """A kind's matrices of all layers in the file's dtype; for packed experts, expert after expert.

    Appends the mean Frobenius norm over the layers to `norms`.
    """
    stack, inner = kind
    names = [stack.name(stack.starts[0] + layer, *inner) for layer in range(stack.sizes[0])]
    for page in range(kind_pages(stack)):
        views = [read(checkpoint, name).reshape(-1, *stack.kind.shape[-2:])[page] for name in names]
        if is_transposed(checkpoint, stack):
            views = [view.T for view in views]
        norms.append(float(np.mean([np.linalg.norm(view.astype(np.float32, copy=False)) for view in views])))
        yield stack_and_release(checkpoint, views)  # no name here keeps the stack while this frame waits


def stack_and_release(checkpoint: Checkpoint, views: list[np.ndarray]) -> np.ndarray:
    return_memory()
    stacked = np.stack(views)
    release(checkpoint)
    return stacked


def return_memory() -> None:
    """Gives freed memory back to the system, before much is asked for again.

    The C library keeps what compilation and the kind before have freed, in pieces that the next kind does not fit into:
    0.13 GB at width 1024 and 12 layers.
    """
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def write_matrices(
    checkpoint: Checkpoint, parts: Sequence[Part], pages: list[np.ndarray], writer: TensorWriter
) -> float:
    """Writes one kind's new matrices, `pages` each [gaps, out, in], in the source's dtype; returns their mean norm."""
    kind = parts[0].stack.kind
    norm = float(np.mean([np.linalg.norm(matrix) for page in pages for matrix in page]))
    if is_transposed(checkpoint, parts[0].stack):
        pages = [page.swapaxes(1, 2) for page in pages]
    for number, part in enumerate(parts):
        with np.errstate(over="ignore"):  # an overflow in float16 is found in the next line
            tensor = np.stack([page[number] for page in pages]).astype(DTYPES[kind.dtype])
        if not np.isfinite(tensor).all():
            raise InputError(f"{part.name}: the prediction is not finite in {kind.dtype}; lower --learning-rate")
        writer.write(part.name, tensor.tobytes())
    return norm
