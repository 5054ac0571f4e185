"""New layers taken out of a grown checkpoint, from the settings to the published folder."""

import hashlib
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from lesa_jax.base.background import second_thread
from lesa_jax.base.console import progress_bars
from lesa_jax.base.files import write_json, write_text
from lesa_jax.base.folders import claim, publish
from lesa_jax.base.settings import by_name
from lesa_jax.checkpoint.companions import carry, left_behind
from lesa_jax.checkpoint.publishing import check_push, push
from lesa_jax.checkpoint.reader import check_unchanged, read_bytes
from lesa_jax.checkpoint.writer import TensorWriter, write_index
from lesa_jax.planning.record import FILE as GROWTH_FILE
from lesa_jax.ungrowth.card import model_card
from lesa_jax.ungrowth.job import UngrowJob, prepare_job
from lesa_jax.ungrowth.record import growth_left, originals_kept
from lesa_jax.ungrowth.result import UngrowResult, cuts_of
from lesa_jax.ungrowth.settings import UngrowSettings


@by_name(UngrowSettings)
def ungrow(settings: UngrowSettings) -> UngrowResult:
    """Takes new layers out of a grown checkpoint; see `UngrowSettings`.

    Returns:
      What was taken out, and whether the originals are the source's.

    Raises:
      InputError: bad input, found before anything is written; nothing carries the output's name then. Or the output is
        complete and its upload failed.
    """
    if settings.push_to_hub is not None:
        check_push(settings.push_to_hub)
    started, job = time.monotonic(), prepare_job(settings)
    for file in left_behind(job.checkpoint.folder):
        print(f"does not go along: {file}", file=sys.stderr)
    with (
        claim(settings.output),
        second_thread() as background,
        publish(settings.output, settings.overwrite) as folder,
        progress_bars() as progress,
    ):
        bar = progress.add_task("bytes written", total=job.layout.nbytes, note="")
        same_files = write_weights(job, folder, background, lambda nbytes: progress.advance(bar, nbytes))
        carry(job.companions, job.checkpoint.folder, folder)
        write_json(folder / "config.json", job.config)
        result = UngrowResult(
            output=settings.output,
            cuts=cuts_of(job.growth.plan, job.left, job.dropped),
            plan=job.left,
            parameters=(job.checkpoint.parameters, job.parameters),
            nbytes=job.layout.nbytes,
            originals=originals_kept(job.growth, same_files),
            notes=job.notes,
            seconds=time.monotonic() - started,
        )
        if not job.left.is_original:
            write_json(folder / GROWTH_FILE, growth_left(job))
        write_text(folder / "README.md", model_card(result, job.growth, job.checkpoint.folder))
    if settings.push_to_hub is not None:
        push(settings.output, settings.push_to_hub)
    return result


def write_weights(job: UngrowJob, folder: Path, background: Executor, advance: Callable[[int], None]) -> bool | None:
    """Copies every tensor that stays.

    Args:
      job: of which they are.
      folder: where they go.
      background: a thread that takes digests of what is being written.
      advance: is called with numbers of bytes as they are written.

    Returns:
      Whether the weight files have the SHA-256 of the source's; None where they are others.
    """
    writer, digests = TensorWriter(folder, job.layout, advance), {}
    for file, header in job.layout.headers.items() if job.as_source else ():
        digests[file] = hashlib.sha256(header)
    for name, entry in job.entries.items():
        data, file = read_bytes(job.checkpoint, entry), job.layout.places[name].file
        hashed = background.submit(digests[file].update, data) if file in digests else None
        writer.write(name, data)
        if hashed is not None:
            hashed.result()
    check_unchanged(job.checkpoint)
    writer.close()
    write_index(folder, job.layout)
    found = {file: digest.hexdigest() for file, digest in digests.items()}
    return found == job.growth.source.get("sha256") if job.as_source else None
