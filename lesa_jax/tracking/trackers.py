"""Where the numbers of a run go besides metrics.jsonl, which every run has: to go on depends on it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError, did_you_mean
from lesa_jax.base.settings import listed
from lesa_jax.tracking.events import Events
from lesa_jax.tracking.weights_and_biases import WandbRun, check_installed, sign_in_to_wandb

TENSORBOARD = "tensorboard"  # also the folder of its files
WANDB = "wandb"
JSONL = "jsonl"  # for those who want nothing else
TRACKERS = (TENSORBOARD, WANDB, JSONL)

Tracker = Events | WandbRun


def parse_trackers(text: str) -> tuple[str, ...]:
    """The trackers that --tracker names, each once.

    Raises:
      InputError: none, one that there is not, or one whose package is not installed.
    """
    names = tuple(dict.fromkeys(listed(text)))
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"--tracker {name}: is none of {', '.join(TRACKERS)}{did_you_mean(name, TRACKERS)}")
    if not names:
        raise InputError(f"--tracker: names none; choose of {', '.join(TRACKERS)} (jsonl: metrics.jsonl alone)")
    if WANDB in names:
        check_installed()
    return names


def sign_in(names: tuple[str, ...]) -> None:
    """Finds out before hours of work whether the trackers will take a run.

    Raises:
      InputError: wandb knows nobody here.
    """
    if WANDB in names:
        sign_in_to_wandb()


def open_trackers(
    names: tuple[str, ...], folder: Path, first_step: int, settings: Mapping[str, Any]
) -> tuple[Tracker, ...]:
    """The trackers of a run's folder, for its steps from `first_step` on.

    Raises:
      InputError: wandb does not take the run.
    """
    opened: list[Tracker] = []
    if TENSORBOARD in names:
        opened.append(Events(folder / TENSORBOARD, first_step))
    if WANDB in names:
        opened.append(WandbRun(folder, settings))
    return tuple(opened)
