"""The options of `python -m lesa_jax.widen`."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import check_seed, free

LARGEST = 8


@dataclass(frozen=True)
class WidenSettings:
    """Make a trained language model wider: hidden size, feed-forward width and heads together, by a whole factor.

    The wider model computes what the original computes, until it is trained; then all of its weights train. Depth goes
    on top, by lesa expand. Without options, the small demo model that comes with lesa_jax becomes twice as wide.

    Examples:
      python -m lesa_jax.widen --model ./Qwen2.5-0.5B --output ./wide
      python -m lesa_jax.widen --model ./model --output ./wide --width 3x --method hyperclone --noise-db 20
    """

    model: str | None = free(None)
    """Folder with config.json and safetensors, or a hub id (org/name). By default the demo model."""
    output: Path = free(Path("widened"))
    """Folder to create."""
    revision: str | None = free(None)
    """Branch, tag or commit, for a hub id."""

    width: str = "2x"
    """How many times as wide: 2x to 8x."""
    method: Literal["lemon", "hyperclone"] = "lemon"
    """lemon: what reads copies of a unit reads each with a random share, so that the copies learn different things.
    hyperclone: with equal shares, as published; without --noise-db the copies stay alike in training."""
    noise_db: float | None = None
    """hyperclone: random numbers that cancel each other on top of the weights, so many decibels below them; 20 is a
    tenth of their size."""
    seed: int = 0
    """Of shares and of noise."""

    overwrite: bool = free(False)
    """Replace an earlier output of this program."""
    push_to_hub: str | None = free(None)
    """Upload what was made as this model on the Hugging Face hub (ORG/NAME), which is made where it is missing."""
    debug: bool = free(False)
    """Show where an error came from, not only what it is."""


def read_factor(width: str) -> int:
    """How many times as wide `--width` wants it.

    Raises:
      InputError: it is none of 2x to 8x.
    """
    found = re.fullmatch(r"([0-9]+)x?", width.strip())
    if found is None or not 2 <= int(found[1]) <= LARGEST:
        raise InputError(f"--width {width}: expected a whole factor from 2x to {LARGEST}x")
    return int(found[1])


def check_settings(settings: WidenSettings) -> None:
    """Refuses options that contradict each other, or cannot mean anything.

    Raises:
      InputError: the option, and what it belongs to or must be.
    """
    read_factor(settings.width)
    check_seed(settings.seed)
    if settings.noise_db is None:
        return
    if settings.method != "hyperclone":
        raise InputError(f"--noise-db belongs to --method hyperclone; {settings.method} breaks the symmetry by itself")
    if not math.isfinite(settings.noise_db):
        raise InputError(f"--noise-db {settings.noise_db}: must be a finite number")
