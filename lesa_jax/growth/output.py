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
from lesa_jax.growth.job import ExpandJob
from lesa_jax.growth.result import KindResult
from lesa_jax.growth.weights import WeightKind


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
        self._measured: dict[str, list[tuple[float, float, float]]] = {}
        self._waiting: dict[str, list[tuple[Rows, np.ndarray]]] = {}  # parts of fused tensors, by the tensor's name
        self._open = ExitStack()
        self.folder = self._open.enter_context(publish(job.settings.output, job.settings.overwrite))
        self.writer = TensorWriter(self.folder, job.layout, advance)

    def receive(self, kind: WeightKind, pages: Sequence[np.ndarray], old_norm: float, loss: float | None) -> None:
        """Writes one kind's new matrices in the source's dtype; what cannot be written is the output's `failure`.

        Parts of a fused tensor wait until all of them are there.

        Args:
          kind: of which they are.
          pages: [new, out, in] each; one, or one for each packed expert.
          old_norm: mean Frobenius norm of the original matrices.
          loss: the predictor's, if one made them.
        """
        parts, dtype = self.job.computed[kind], kind.stack.spec.dtype
        expected = [len(parts), *kind.shape[1:]]
        if list(pages[0].shape) != expected:
            self.failure = InputError(f"{kind.name}: the initialiser gave {list(pages[0].shape)} for {expected}")
            return
        new_norm = float(np.mean([np.linalg.norm(matrix) for page in pages for matrix in page]))
        for number, part in enumerate(parts):
            with np.errstate(over="ignore"):  # found when it is written
                new = np.stack([page[number] for page in pages])
                new = (new if part.scale == 1 else part.scale * new).astype(DTYPES[dtype])
            tensor = new if kind.part is None else self._fuse(part.name, kind, kind.part, new[0])
            if tensor is None:
                continue
            if kind.transposed:
                tensor = np.ascontiguousarray(tensor.swapaxes(-1, -2))
            if not self.write(part.name, tensor, self.job.method.start.remedy):
                return
        self._measured.setdefault(kind.name, []).append((old_norm, new_norm, np.nan if loss is None else loss))

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
        found = {}
        for name, rows in self._measured.items():
            old_norm, new_norm, loss = np.mean(rows, axis=0).tolist()
            found[name] = KindResult(old_norm, new_norm, None if np.isnan(loss) else loss)
        return found

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
