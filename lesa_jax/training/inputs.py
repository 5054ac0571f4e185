"""All that a run's losses come from beside its settings, as digests: a run goes on with the same, or not at all."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any

from lesa_jax.base.background import second_thread
from lesa_jax.base.digests import digest, digest_file, digest_files
from lesa_jax.checkpoint.integrity import check_finite
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.data.packing import PackedRows
from lesa_jax.data.tokens import TOKENIZER_FILES
from lesa_jax.training.job import TrainJob

# What each is called when it is another than the one that a run was begun with.
NAMES = {
    "lesa_jax": "version of lesa_jax",
    "weights": "model (the content of its weight files)",
    "config": "config.json of the model",
    "growth": "growth.json of the model",
    "tokenizer": "tokenizer",
    "data": "content of --data",
    "eval_text": "--eval-text or --ppl-protocol",
}

Weights = dict[str, str]  # SHA-256 of each weight file, by its name


@contextmanager
def weights_digested(checkpoint: Checkpoint | None) -> Iterator[Callable[[], Weights]]:
    """Reads the weight files in the background; what is yielded waits for their digests, when they are needed.

    Raises InputError there for a file that cannot be read, and for weights that are not finite: frozen ones would be
    copied to what is published.
    """
    if checkpoint is None:
        yield dict
        return
    left = Event()

    def digests() -> Weights:
        found = _digests(checkpoint.files, left)
        check_finite(checkpoint)
        return found

    with second_thread() as thread:
        found = thread.submit(digests)
        try:
            yield found.result
        finally:
            left.set()


def _digests(files: Sequence[Path], left: Event) -> Weights:
    def go_on(nbytes: int) -> None:
        if left.is_set():
            raise CancelledError

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(lambda file: digest_file(file, go_on), files)
        return dict(zip((file.name for file in files), found, strict=True))


def digest_inputs(job: TrainJob, rows: PackedRows, weights: Callable[[], Weights]) -> dict[str, Any]:
    """By the names of `NAMES`, as JSON; None for what the run has not. Waits for those of the `weights`."""
    tokenizer = [job.folder / name for name in TOKENIZER_FILES if (job.folder / name).is_file()]
    measured = job.eval_text is not None
    return {
        "lesa_jax": version("lesa_jax"),
        "weights": weights() or None,
        "config": digest(job.hf_config),
        "growth": None if job.growth is None else digest(job.growth.to_json()),
        "tokenizer": digest(dict(digest_files(tokenizer))),
        "data": digest_data(rows),
        "eval_text": digest([job.settings.held_out.ppl_protocol, job.eval_text]) if measured else None,
    }


def digest_data(rows: PackedRows) -> str:
    """Of the tokens that are trained on, and of how they lie in documents."""
    return digest(dict(digest_files(sorted(rows.store.folder.iterdir()))))
