"""A grown checkpoint on its way to the disk."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType

import numpy as np

from lesa_jax.base.errors import InputError
from lesa_jax.base.folders import publish
from lesa_jax.checkpoint.format import DTYPES
from lesa_jax.checkpoint.writer import TensorWriter
from lesa_jax.families.fused import Rows
from lesa_jax.families.kinds import WeightKind, kind_name
from lesa_jax.growth.job import ExpandJob
from lesa_jax.growth.recipe import Part
from lesa_jax.growth.result import KindResult, Learned, averaged


class Output:
    """The hidden folder that becomes a job's output, and what is known of it so far. A context manager.

    It gets its name by `publish` and vanishes by `discard`, or with an error that leaves the context.

    Attributes:
      job: what is to be made.
      folder: where the files are meanwhile.
      writer: of its tensors.
      failure: why this model cannot be made, if so; others that grow with it go on.
    """

    def __init__(self, job: ExpandJob, advance: Callable[[int], None]):
        """`advance` is called with numbers of bytes as they are written."""
        self.job = job
        self.failure: InputError | None = None
        self._measured: dict[str, list[KindResult]] = {}
        self._waiting: dict[str, list[tuple[Rows, np.ndarray]]] = {}  # parts of fused tensors, by the tensor's name
        self._open = ExitStack()
        self.folder = self._open.enter_context(publish(job.settings.output, job.settings.overwrite))
        self.writer = TensorWriter(self.folder, job.layout, advance)

    def receive(
        self, kind: WeightKind, pages: Sequence[np.ndarray], old_norm: float, learned: Sequence[Learned] = ()
    ) -> None:
        """Writes one kind's new matrices in the source's dtype; what cannot be written is the output's `failure`.

        Parts of a fused tensor wait until all of them are there.

        Args:
          kind: of which they are.
          pages: [new, out, in] each; one, or one for each packed expert.
          old_norm: mean Frobenius norm of the original matrices.
          learned: how well, for each page, if a predictor made them.
        """
        parts, dtype = self.job.computed[kind], kind.stack.spec.dtype
        expected = [len(parts), *kind.shape[1:]]
        if list(pages[0].shape) != expected:
            self.failure = InputError(f"{kind.name}: the initialiser gave {list(pages[0].shape)} for {expected}")
            return
        new_norm = float(np.mean([np.linalg.norm(matrix) for page in pages for matrix in page]))
        factors = [one.agreement if self.job.shrinks else 1.0 for one in learned] or [1.0] * len(pages)
        for number, part in enumerate(parts):
            with np.errstate(over="ignore"):  # found when it is written
                new = np.stack([part.scaled(page[number], a) for page, a in zip(pages, factors, strict=True)])
                new = new.astype(DTYPES[dtype])
            tensor = new if kind.part is None else self._fuse(part.name, kind, kind.part, new[0])
            if tensor is None:
                continue
            if kind.transposed:
                tensor = np.ascontiguousarray(tensor.swapaxes(-1, -2))
            if kind.order is not None and not kind.inner:  # from roles to the numbers of the layer below
                tensor = tensor.reshape(kind.stack.spec.shape)
                tensor = tensor[np.argsort(kind.order[part.numbers[0] - kind.stack.starts[0]])]
            if not self.write(part.name, tensor, self.job.method.start.remedy):
                return
        quality = np.mean(learned, axis=0).tolist() if learned else ()
        self._measured.setdefault(kind.name, []).append(KindResult(old_norm, new_norm, *quality))

    def agreement(self, part: Part) -> float:
        """How loud what a tensor belongs to is to be, if it is not computed itself: as far as the projection is right
        whose loudness it decides.
        """
        if not self.job.shrinks or part.loudness is None:
            return 1.0
        known, name = self.kinds, kind_name(part.stack, part.loudness.writer)
        agreements = [known[name]] if name in known else known.values()  # all, of what was not predicted itself
        return float(np.mean([kind.agreement for kind in agreements if kind.agreement is not None]))

    def _fuse(self, name: str, kind: WeightKind, part: Rows, new: np.ndarray) -> np.ndarray | None:
        """A fused tensor as [out, in], of this part and those that were given before; None while some are missing."""
        parts = [*self._waiting.pop(name, []), (part, new)]
        shape = kind.stack.spec.shape[::-1] if kind.transposed else kind.stack.spec.shape
        if sum(rows.count for rows, _ in parts) < shape[0]:
            self._waiting[name] = parts
            return None
        fused = np.empty(shape, new.dtype)
        for rows, matrix in parts:
            space = rows.of(fused)
            space[...] = matrix.reshape(space.shape)
        return fused

    def write(
        self, name: str, data: bytes | memoryview | np.ndarray, remedy: str = "choose another --output-scale"
    ) -> bool:
        """Writes one tensor; whether its numbers are finite. If not, that is the output's `failure`."""
        try:
            self.writer.write(name, data)
        except InputError as error:
            self.failure = InputError(f"{error}; {remedy}")
        return self.failure is None

    @property
    def kinds(self) -> Mapping[str, KindResult]:
        """What was measured on each kind of weight, experts averaged."""
        return {name: averaged(results) for name, results in self._measured.items()}

    def publish(self) -> None:
        """Gives the folder its name."""
        self._open.close()

    def discard(self, reason: BaseException) -> None:
        """Removes the folder."""
        self._open.__exit__(type(reason), reason, reason.__traceback__)

    def __enter__(self) -> "Output":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.discard(error)
