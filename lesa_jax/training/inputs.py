"""All that a run's losses come from beside its settings, as digests: a run goes on with the same, or not at all."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from lesa_jax.base.digests import digest, digest_files
from lesa_jax.checkpoint.companions import tokenizer_files
from lesa_jax.checkpoint.integrity import Digests
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


def digest_inputs(job: TrainJob, rows: Mixture, weights: Callable[[], Digests]) -> dict[str, Any]:
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
