"""All that a run's losses come from beside its settings, as digests: a run goes on with the same, or not at all."""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from importlib.metadata import version
from threading import Event
from typing import Any

from lesa_jax.base.background import second_thread
from lesa_jax.base.digests import digest, digest_files
from lesa_jax.checkpoint.companions import tokenizer_files
from lesa_jax.checkpoint.integrity import check_finite
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.data.mixture import Mixture
from lesa_jax.training.job import TrainJob

# What each is called when it is another than the one that a run was begun with.
NAMES = {
    "lesa_jax": "version of lesa_jax",
    "weights": "model (the content of its weight files)",
    "config": "config.json of the model",
    "growth": "growth.json of the model",
    "tokenizer": "tokenizer",
    "data": "content of --data",
    "texts": "--eval-text, --retain-text or --ppl-protocol",
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

    def go_on(nbytes: int) -> None:
        if left.is_set():
            raise CancelledError

    def digests() -> Weights:
        found = digest_files(checkpoint.files, go_on)
        check_finite(checkpoint)
        return found

    with second_thread() as thread:
        found = thread.submit(digests)
        try:
            yield found.result
        finally:
            left.set()


def digest_inputs(job: TrainJob, rows: Mixture, weights: Callable[[], Weights]) -> dict[str, Any]:
    """By the names of `NAMES`, as JSON; None for what the run has not. Waits for those of the `weights`."""
    return {
        "lesa_jax": version("lesa_jax"),
        "weights": weights() or None,
        "config": digest(job.hf_config),
        "growth": None if job.growth is None else digest(job.growth.to_json()),
        "tokenizer": digest(digest_files(tokenizer_files(job.folder))),
        "data": rows.digest,
        "texts": digest([job.settings.held_out.ppl_protocol, dict(job.texts)]) if job.texts else None,
    }
