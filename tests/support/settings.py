"""Settings by the flat names that a shell has for them."""

from pathlib import Path
from typing import Any, TypeVar

from lesa_jax.base.settings import replaced
from lesa_jax.training.settings import TrainSettings

Settings = TypeVar("Settings")


def nest(kind: type[Settings], **options: Any) -> Settings:
    """Settings of which some differ from their defaults, each in the group that it belongs to."""
    return change(kind(), **options)


def change(settings: Settings, **options: Any) -> Settings:
    """The settings with other values of some options, each in the group that it belongs to."""
    return replaced(settings, options)


def train_settings(place: Path, output: str, **changes: Any) -> TrainSettings:
    """Six short steps on the model of the fixture `place`, with further options by their names."""
    options = {
        "model": str(place / "grown"),
        "data": str(place / "data.jsonl"),
        "output": place / output,
        "steps": 6,
        "batch_size": 8,
        "sequence_length": 32,
        "learning_rate": 1e-2,
        "eval_text": place / "eval.txt",
        "eval_every": 3,
        "save_every": 2,
    }
    return nest(TrainSettings, **(options | changes))
