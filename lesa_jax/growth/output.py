"""A grown checkpoint on its way to the disk."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType

import numpy as np

from lesa_jax.base.errors import InputError
from lesa_jax.base.folders import publish
from lesa_jax.checkpoint.format import DTYPES
from lesa_jax.checkpoint.writer import TensorWriter
from lesa_jax.families.kinds import WeightKind, byte_starts, kind_name
from lesa_jax.growth.job import ExpandJob
from lesa_jax.growth.journal import Journal, key
from lesa_jax.growth.recipe import Part
from lesa_jax.growth.result import KindResult, Learned, averaged


class Output:
    """The hidden folder that becomes a job's output, and what is known of it so far. A context manager.

    It gets its name by `publish` and vanishes by `discard`, or with an error that leaves the context.

    Attributes:
      job: what is to be made.
      folder: where the files are meanwhile.
      writer: of its tensors.
      journal: of what is done.
      pending: the kinds that are still to be computed.
      failure: why this model cannot be made, if so; others that grow with it go on.
    """

    def __init__(self, job: ExpandJob, advance: Callable[[int], None]):
        """`advance` is called with numbers of bytes as they are written."""
        self.job = job
        self.failure: InputError | None = None
        self._open = ExitStack()
        self.folder = self._open.enter_context(publish(job.settings.output, job.settings.overwrite, job.digest))
        self.writer = TensorWriter(self.folder, job.layout, advance)
        self.journal = Journal(self.folder)
        self._open.callback(self.journal.close)
        self.pending = {kind: parts for kind, parts in job.computed.items() if key(kind) not in self.journal.kinds}
        for name in self.journal.tensors:
            self.writer.skip(name)
        for kind in job.computed.keys() - self.pending.keys():
            for part in job.computed[kind]:
                self.writer.skip(part.name, kind.tensor_bytes)

    def receive(
        self,
        kind: WeightKind,
        page: int,
        matrices: Iterable[np.ndarray],
        old_norm: float,
        learned: Learned | None = None,
    ) -> KindResult | None:
        """Writes one kind's new matrices in the source's dtype, each as it is made; what cannot be made or written is
        the output's `failure`.

        Args:
          kind: of which they are.
          page: of which packed expert; 0 of others.
          matrices: [out, in], one for each new layer.
          old_norm: mean Frobenius norm of the original matrices.
          learned: how well, if a predictor made them.

        Returns:
          What was measured on them, if they were written.
        """
        if self.failure is not None:
            return None
        factor = learned.agreement if learned is not None and self.job.shrinks else 1.0
        norms = []
        try:
            for part, matrix in zip(self.job.computed[kind], matrices, strict=True):
                norms.append(np.linalg.norm(matrix))
                with np.errstate(over="ignore"):  # found when it is written
                    new = part.scaled(matrix, factor).astype(DTYPES[kind.stack.spec.dtype])
                layer = part.numbers[0] - kind.stack.starts[0]
                if kind.order is not None and not kind.inner and kind.pages == 1:  # a router's rows
                    new = new[np.argsort(kind.order[layer])]  # from roles to the numbers of the layer below
                new = np.ascontiguousarray(new.T if kind.transposed else new)
                if not self.write(part.name, new, self.job.method.start.remedy, byte_starts(kind, page, layer)):
                    return None
        except InputError as error:
            self.failure = error
            return None
        return KindResult(old_norm, float(np.mean(norms)), *(() if learned is None else learned))

    def finish_kind(self, kind: WeightKind, results: Sequence[KindResult]) -> None:
        """Notes that all pages of a kind are written, and what was measured on each."""
        self.writer.sync()
        self.journal.finish_kind(kind, results)
        del self.pending[kind]

    def finish_tensors(self, names: Iterable[str]) -> None:
        """Notes that other tensors are written."""
        self.writer.sync()
        self.journal.finish_tensors(names)

    def agreement(self, part: Part) -> float:
        """How loud what a tensor belongs to is to be, if it is not computed itself: as far as the projection is right
        whose loudness it decides.
        """
        if not self.job.shrinks or part.loudness is None:
            return 1.0
        known, name = self.kinds, kind_name(part.stack, part.loudness.writer)
        agreements = [known[name]] if name in known else known.values()  # all, of what was not predicted itself
        return float(np.mean([kind.agreement for kind in agreements if kind.agreement is not None]))

    def write(
        self,
        name: str,
        data: bytes | memoryview | np.ndarray,
        remedy: str = "choose another --output-scale",
        starts: Sequence[int] = (0,),
    ) -> bool:
        """Writes a tensor, or pieces of one; whether its numbers are finite. If not, that is the output's `failure`."""
        try:
            self.writer.write(name, data, starts)
        except InputError as error:
            self.failure = InputError(f"{error}; {remedy}")
        return self.failure is None

    @property
    def kinds(self) -> Mapping[str, KindResult]:
        """What was measured on each kind of weight, experts averaged."""
        measured: dict[str, list[KindResult]] = {}
        for kind in self.job.computed:
            measured.setdefault(kind.name, []).extend(self.journal.kinds.get(key(kind), ()))
        return {name: averaged(results) for name, results in measured.items() if results}

    def publish(self) -> None:
        """Gives the folder its name."""
        self.journal.remove()
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
