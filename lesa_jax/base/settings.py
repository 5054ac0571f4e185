"""Settings are frozen dataclasses, nested by what they are about; a shell, and a record on the disk, see one flat list.

A setting whose value decides what comes out is plain. One that says where things lie, how they are computed or what is
shown is `free`: a record of what made a result leaves it out, and going on with earlier work may change it.
"""

import shlex
from collections.abc import Iterator
from dataclasses import MISSING, Field, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError

FREE = "free"
SEEDS = 1 << 32  # JAX keeps 32 bits of a seed: a larger one would be the same as a smaller one


def free(default: Any = MISSING) -> Any:
    """A field with this default whose value decides nothing about the result."""
    return field(default=default, metadata={FREE: True})


def flatten(settings: Any) -> dict[str, Any]:
    """All settings by name, those of nested groups among them, in the order in which they are declared."""
    return {setting.name: value for setting, value in _leaves(settings)}


def deciding(settings: Any) -> dict[str, Any]:
    """The settings that decide what comes out, as JSON values."""
    return {setting.name: _plain(value) for setting, value in _leaves(settings) if not setting.metadata.get(FREE)}


def option(name: str) -> str:
    """How a setting is called in a shell."""
    return "--" + name.replace("_", "-")


def listed(text: str) -> list[str]:
    """The words of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def check_seed(seed: int) -> None:
    """Refuses a --seed that would not be one of its own."""
    if not 0 <= seed < SEEDS:
        raise InputError(f"--seed {seed}: expected 0 to {SEEDS - 1}")


def command_line(door: str, settings: Any) -> str:
    """How a shell asks for these settings: the command (`door`), and the options that differ from their default."""
    defaults = flatten(type(settings)())
    asked = [(name, value) for name, value in flatten(settings).items() if value != defaults[name]]
    return " ".join([door, *(shlex.quote(word) for name, value in asked for word in _words(name, value))])


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [option(name if value else f"no_{name}")]
    return [option(name), *map(str, value if isinstance(value, tuple) else [value])]


def _leaves(settings: Any) -> Iterator[tuple[Field, Any]]:
    for setting in fields(settings):
        value = getattr(settings, setting.name)
        if is_dataclass(value):
            yield from _leaves(value)
        else:
            yield setting, value


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
