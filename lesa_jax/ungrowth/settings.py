"""The options of `python -m lesa_jax.ungrow`."""

import math
from dataclasses import dataclass
from pathlib import Path

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import free
from lesa_jax.planning.placement import GrownStack


@dataclass(frozen=True)
class UngrowSettings:
    """Take new layers out of a grown model, trained since or not: all of them, or those that it does not miss.

    All other tensors, the tokenizer and what else lies beside them stay to the byte, and config.json becomes what it
    was. growth.json says which layers are new, and goes on saying so where some of them stay.

    Examples:
      python -m lesa_jax.ungrow --model ./grown --output ./original
      python -m lesa_jax.ungrow --model run/final --output out --layers 8,17-19
      python -m lesa_jax.ungrow --model run/final --output out --idle analysis/analysis.json
    """

    model: str | None = None
    """Folder of a grown checkpoint, with growth.json, or a hub id (org/name)."""
    output: Path = free(Path("ungrown"))
    """Folder to create."""
    revision: str | None = None
    """Branch, tag or commit, for a hub id."""

    layers: str | None = None
    """Which new layers go, by their numbers in the grown model: 8 or 8,17-19. By default all."""
    stack: GrownStack | None = None
    """Of an encoder-decoder, whose new layers go; by default of both. --layers counts in each by itself."""
    idle: Path | None = None
    """Those go that the model does not miss by this analysis.json, which lesa analyze has made of it."""
    below: float = 0.0
    """idle: a layer goes if the loss gains at most so much without it, nats a token; 0: if the loss is no higher."""

    overwrite: bool = free(False)
    """Replace an earlier output of this program."""
    push_to_hub: str | None = free(None)
    """Upload what was made as this model on the Hugging Face hub (ORG/NAME), which is made where it is missing."""
    debug: bool = free(False)
    """Show where an error came from, not only what it is."""


def check_settings(settings: UngrowSettings) -> None:
    """Refuses options that contradict each other, or cannot mean anything.

    Raises:
      InputError: the option, and what it belongs to or must be.
    """
    if settings.model is None:
        raise InputError("--model: name the grown model that layers are to be taken out of, a folder or a hub id")
    if settings.layers is not None and settings.idle is not None:
        raise InputError("--idle finds the layers by itself: leave out --layers")
    if not math.isfinite(settings.below):
        raise InputError(f"--below {settings.below}: must be a finite number")
    if settings.below != UngrowSettings.below and settings.idle is None:
        raise InputError("--below belongs to --idle: name the analysis.json in which to look")
