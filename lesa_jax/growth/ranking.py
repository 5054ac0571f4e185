"""Layers in the order of what they matter, for placements that put new ones next to those that matter least."""

import functools
from pathlib import Path

import numpy as np

from lesa_jax.base.console import progress_bars
from lesa_jax.base.digests import Stamp, stamp
from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import Checkpoint, open_checkpoint
from lesa_jax.models.config import read_model
from lesa_jax.models.shapes import check_tensors

# Modules that need JAX are imported where something is measured: planning alone runs without.


def rank_layers(checkpoint: Checkpoint, placement: str, text: str) -> tuple[int, ...]:
    """The layers, those that matter least on a text first.

    Args:
      checkpoint: the original.
      placement: "importance", by what the loss gains when a layer is passed by, or "influence", by how far it turns the
        residual stream.
      text: its first tokens are used.

    Raises:
      InputError: a text that is too short, an encoder-decoder, or a family without a forward pass.
    """
    if read_model(checkpoint).encoder is not None:
        raise InputError(f"--placement {placement}: is for decoders alone; use another place")
    return measured(checkpoint.folder, tuple(stamp(file.stat()) for file in checkpoint.files), placement, text)


@functools.lru_cache(maxsize=8)
def measured(folder: Path, files: tuple[Stamp, ...], placement: str, text: str) -> tuple[int, ...]:
    """`rank_layers` of a checkpoint that holds these files; once for all that grow from it together."""
    from lesa_jax.evaluation.layers import block_influence, bypass_costs
    from lesa_jax.evaluation.sample import sample_rows

    checkpoint = open_checkpoint(folder)
    config = read_model(checkpoint)
    check_tensors(checkpoint, config)
    rows = sample_rows(folder, text, config)
    with progress_bars() as progress:
        bar = progress.add_task(f"{placement} of layers", total=config.num_layers, note="")

        def advance(done: int) -> None:
            progress.advance(bar, done)

        measure = block_influence if placement == "influence" else bypass_costs
        values = measure(checkpoint, config, rows, advance)
    if not np.isfinite(values).all():
        raise InputError(
            f"--placement {placement}: the model's loss on this text is not a number; its weights are damaged"
        )
    return tuple(int(layer) for layer in np.argsort(values, kind="stable"))
