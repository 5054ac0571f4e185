"""New matrices for whole checkpoints: one weight kind after the other is read, worked on, written, forgotten.

Any number of grown models of one original are filled at once: a kind is read once for all of them.
"""

import ctypes
import functools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

import jax
import numpy as np
from rich.progress import Progress

from lesa_jax.base.background import second_thread
from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.format import DTYPES
from lesa_jax.checkpoint.reader import Checkpoint, read, release
from lesa_jax.checkpoint.writer import TensorWriter
from lesa_jax.families.roles import is_transposed
from lesa_jax.growth.recipe import Part
from lesa_jax.growth.requests import NamedKind, NewMatrices, Order, fill_orders
from lesa_jax.growth.result import KindReport
from lesa_jax.growth.weights import WeightKind, kind_name, kind_pages, weight_kinds
from lesa_jax.initializers.lesa.predict import compile_prediction
from lesa_jax.initializers.lesa.predictor import PUBLISHED, PredictorSettings
from lesa_jax.planning.methods import Initialiser, Lesa


@dataclass
class Growing:
    """One grown model under way.

    Attributes:
      parts: the tensors that `initialiser` computes.
      seed, settings: see `initializers.orders`.
      kinds: norms and losses by kind, experts averaged; filled here.
      failure: why this model cannot be made, if so; the others go on.
    """

    parts: Sequence[Part]
    initialiser: Lesa | Initialiser
    seed: int = 0
    settings: PredictorSettings = PUBLISHED
    kinds: dict[str, KindReport] = field(default_factory=dict)
    failure: InputError | None = None

    def order(self, kind: WeightKind) -> Order:
        gaps = tuple(part.numbers[0] - part.stack.starts[0] for part in self.parts_of(kind))
        return Order(self.initialiser, gaps, self.seed, self.settings)

    def parts_of(self, kind: WeightKind) -> list[Part]:
        """In ascending order of their gaps."""
        return self.parts_by_kind.get(kind, [])

    @functools.cached_property
    def parts_by_kind(self) -> dict[WeightKind, list[Part]]:
        found: dict[WeightKind, list[Part]] = {}
        for part in sorted(self.parts, key=lambda part: part.numbers):
            found.setdefault((part.stack, part.numbers[1:]), []).append(part)
        return found


def compute_new_layers(
    checkpoint: Checkpoint, outlets: Sequence[tuple[Growing, TensorWriter]], progress: Progress
) -> None:
    """Computes and writes new layers' matrices, one weight kind after the other, for all models.

    Args:
      checkpoint: the original.
      outlets: the models to make, whose `kinds` and `failure` say how it went, and what receives their tensors.
      progress: gets a bar over weight kinds.
    """
    models = [model for model, _ in outlets]
    batches = batches_of(models)
    bar = progress.add_task("weight kinds", total=sum(map(len, batches)), note="")
    measured: list[dict[str, list[tuple[float, float, float]]]] = [{} for _ in models]
    with second_thread() as compiler:
        for n, batch in enumerate(batches):
            wanting = [i for i, model in enumerate(models) if model.parts_of(batch[0]) and not model.failure]
            orders = [models[i].order(batch[0]) for i in wanting]
            old_norms: list[float] = []  # filled when the weights are read
            weights = chain.from_iterable(named_kinds(checkpoint, kind, old_norms) for kind in batch)
            filled = fill_orders(weights, orders)
            following = batches[n + 1 : n + 2]
            for kind in batch:
                name = kind_name(kind[0])
                progress.update(bar, note=name)
                pages = []
                for _ in range(kind_pages(kind[0])):
                    page = next(filled)  # comes as soon as its training is under way
                    while following:  # once
                        compiler.submit(compile_batch, checkpoint, models, following.pop())
                    pages.append(wait(page))
                    del page
                old_norm = float(np.mean(old_norms[: len(pages)]))
                for i in wanting:
                    row = old_norm, *write_matrices(checkpoint, *outlets[i], kind, [page.pop(0) for page in pages])
                    measured[i].setdefault(name, []).append(row)
                del old_norms[: len(pages)], pages
                progress.advance(bar)
    for model, rows_of in zip(models, measured, strict=True):
        model.kinds = {name: kind_report(rows) for name, rows in rows_of.items()}


def mean_loss(pages: Sequence[NewMatrices]) -> float:
    """Of the predictors' last epochs; NaN where none was trained."""
    return float(np.mean([float(page.fit.epoch_losses[-1]) if page.fit else np.nan for page in pages]))


def kind_report(rows: Sequence[tuple[float, float, float]]) -> KindReport:
    old_norm, new_norm, loss = np.mean(rows, axis=0).tolist()
    return KindReport(old_norm, new_norm, None if np.isnan(loss) else loss)


def batches_of(models: Sequence[Growing]) -> list[list[WeightKind]]:
    """Kinds that share shape, layers, and the models that want them; a model with silenced outputs wants fewer."""
    batches = []
    for batch in weight_kinds([part for model in models for part in model.parts]):
        groups: dict[tuple[bool, ...], list[WeightKind]] = {}
        for kind in batch:
            groups.setdefault(tuple(bool(model.parts_of(kind)) for model in models), []).append(kind)
        batches += groups.values()
    return batches


def compile_first(checkpoint: Checkpoint, models: Sequence[Growing]) -> None:
    """Compiles what `compute_new_layers` begins with."""
    compile_batch(checkpoint, models, batches_of(models)[0])


def compile_batch(checkpoint: Checkpoint, models: Sequence[Growing], batch: list[WeightKind]) -> None:
    """Compiles what `compute_new_layers` will run for this batch of weight kinds."""
    if jax.default_backend() != "cpu":  # there a batch is one program of its own
        return
    stack = batch[0][0]
    out, fan_in = stack.kind.shape[-2:]
    if is_transposed(checkpoint, stack):
        out, fan_in = fan_in, out
    shape = (stack.sizes[0], out, fan_in)
    for order in dict.fromkeys(model.order(batch[0]) for model in models):
        if isinstance(order.initialiser, Lesa) and order.gaps:
            dtype = DTYPES[stack.kind.dtype]
            compile_prediction(shape, dtype, order.gaps, order.initialiser, order.settings)


def wait(page: list[NewMatrices]) -> list[NewMatrices]:
    """Waits for a computation in a way that Ctrl-C can end, which blocking inside XLA is not."""
    while not all(new.weights.is_ready() for new in page):  # pyright: ignore[reportAttributeAccessIssue]
        time.sleep(0.01)
    return page


def named_kinds(checkpoint: Checkpoint, kind: WeightKind, norms: list[float]) -> Iterator[NamedKind]:
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
        # No name here keeps the stack while this frame waits.
        yield NamedKind(f"{stack.template} {inner} {page}", stack_and_release(checkpoint, views))


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
    checkpoint: Checkpoint, model: Growing, writer: TensorWriter, kind: WeightKind, pages: Sequence[NewMatrices]
) -> tuple[float, float]:
    """Writes one kind's new matrices, `pages` each [new, out, in], in the source's dtype.

    Returns:
      Their mean norm, and the mean loss of the predictors that made them; NaN where there is none.
    """
    matrices = [np.asarray(page.weights) for page in pages]
    parts = model.parts_of(kind)
    out, fan_in = kind[0].kind.shape[-2:]
    if is_transposed(checkpoint, kind[0]):
        out, fan_in = fan_in, out
    if model.failure is None and matrices[0].shape != (len(parts), out, fan_in):
        expected = f"[{len(parts)}, {out}, {fan_in}]"
        model.failure = InputError(
            f"{kind_name(kind[0])}: the initialiser gave {list(matrices[0].shape)} for {expected}"
        )
    if model.failure is not None:
        return math.nan, math.nan
    norm = float(np.mean([np.linalg.norm(matrix) for page in matrices for matrix in page]))
    if is_transposed(checkpoint, kind[0]):
        matrices = [page.swapaxes(1, 2) for page in matrices]
    for number, part in enumerate(parts):
        with np.errstate(over="ignore"):  # an overflow in float16 is found below
            new = np.stack([page[number] for page in matrices])
            tensor = (new if part.scale == 1 else part.scale * new).astype(DTYPES[part.stack.kind.dtype])
        if not np.isfinite(tensor).all():
            remedy = "lower --learning-rate" if isinstance(model.initialiser, Lesa) else "look at the initialiser"
            model.failure = InputError(f"{part.name}: not finite in {part.stack.kind.dtype}; {remedy}")
            break
        writer.write(part.name, tensor.tobytes())
    return norm, mean_loss(pages)
