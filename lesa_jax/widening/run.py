"""A checkpoint made wider, from the settings to the published folder."""

import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lesa_jax.base.console import progress_bars
from lesa_jax.base.files import write_json, write_text
from lesa_jax.base.folders import claim, publish
from lesa_jax.base.settings import by_name, deciding
from lesa_jax.checkpoint.companions import carry, left_behind
from lesa_jax.checkpoint.integrity import verified_beside
from lesa_jax.checkpoint.publishing import check_push, push
from lesa_jax.checkpoint.reader import check_unchanged, read
from lesa_jax.checkpoint.writer import TensorWriter, write_index
from lesa_jax.widening.card import model_card
from lesa_jax.widening.job import FILE, WidenJob, prepare_job
from lesa_jax.widening.result import WidenResult
from lesa_jax.widening.rules import find_sharing, widened
from lesa_jax.widening.settings import WidenSettings

FORMAT = 1
PACKAGES = ("lesa_jax", "numpy")


@by_name(WidenSettings)
def widen(settings: WidenSettings) -> WidenResult:
    """Makes a checkpoint wider; see `WidenSettings`.

    Returns:
      What was done.

    Raises:
      InputError: bad input, found before anything is written; nothing carries the output's name then. Or the output is
        complete and its upload failed.
    """
    if settings.push_to_hub is not None:
        check_push(settings.push_to_hub)
    started, job = time.monotonic(), prepare_job(settings)
    folder_of_source = job.checkpoint.folder
    for file in left_behind(folder_of_source):
        print(f"does not go along: {file}", file=sys.stderr)
    with (
        claim(settings.output),
        verified_beside(job.checkpoint) as digests,
        publish(settings.output, settings.overwrite) as folder,
        progress_bars() as progress,
    ):
        bar = progress.add_task("bytes written", total=job.layout.nbytes, note="")
        write_weights(job, folder, lambda nbytes: progress.advance(bar, nbytes))
        carry(job.companions, folder_of_source, folder)
        write_json(folder / "config.json", job.config)
        sha256 = digests()
        check_unchanged(job.checkpoint)  # so that these are the digests of what was read
        result = WidenResult(
            output=settings.output,
            method=settings.method,
            factor=job.factor,
            sizes=job.sizes,
            parameters=(job.checkpoint.parameters, job.parameters),
            nbytes=job.layout.nbytes,
            notes=job.notes,
            seconds=time.monotonic() - started,
        )
        write_json(folder / FILE, widening_record(job, sha256))
        write_text(folder / "README.md", model_card(result, job.source_name, folder_of_source))
    if settings.push_to_hub is not None:
        push(settings.output, settings.push_to_hub)
    return result


def write_weights(job: WidenJob, folder: Path, advance: Callable[[int], None]) -> None:
    """Writes every tensor, one at a time; `advance` is called with numbers of bytes as they are written."""
    settings, writer = job.settings, TensorWriter(folder, job.layout, advance)
    sharing = find_sharing(settings.method, settings.noise_db)
    for name, tensor in job.tensors.items():
        weights = read(job.checkpoint, tensor.source)
        writer.write(name, widened(weights, tensor.copies, sharing if tensor.shared else None, name, settings.seed))
    writer.close()
    write_index(folder, job.layout)


def widening_record(job: WidenJob, sha256: Mapping[str, str]) -> dict[str, Any]:
    """widening.json: nothing that changes from run to run, no times, no paths."""
    return {
        "format": FORMAT,
        "method": job.settings.method,
        "factor": job.factor,
        "settings": deciding(job.settings),
        "sizes": {name: {"before": before, "after": after} for name, (before, after) in job.sizes.items()},
        "parameters": {"before": job.checkpoint.parameters, "after": job.parameters},
        "untied": job.model.tied,
        "source": {"model": job.source_name, "revision": job.settings.revision, "sha256": dict(sha256)},
        "versions": {name: version(name) for name in PACKAGES},
    }
