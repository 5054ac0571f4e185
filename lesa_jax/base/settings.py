"""Settings are frozen dataclasses, nested by what they are about; a shell, and a record on the disk, see one flat list.

A setting whose value decides what comes out is plain. One that says where things lie, how they are computed or what is
shown is `free`: a record of what made a result leaves it out, and going on with earlier work may change it.
"""

import functools
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from lesa_jax.base.errors import InputError, did_you_mean

Settings = TypeVar("Settings")
Result = TypeVar("Result")

FREE = "free"
SEEDS = 1 << 32  # JAX keeps 32 bits of a seed: a larger one would be the same as a smaller one


def free(default: Any = MISSING) -> Any:
    """A field with this default whose value decides nothing about the result."""
    return field(default=default, metadata={FREE: True})


def by_name(settings: type[Settings]) -> Callable[[Callable[[Settings], Result]], Callable[..., Result]]:
    """Lets a function of settings be called with their names beside or instead of an object of them, by the flat list
    that a shell sees, a path as a string if you like: `expand(model="./model", layers=24, epochs=5)`.

    Raises:
      InputError: a name that they have not.
    """

    def decorate(function: Callable[[Settings], Result]) -> Callable[..., Result]:
        @functools.wraps(function)
        def called(given: Settings | None = None, /, **options: Any) -> Result:
            return function(replaced(settings() if given is None else given, options))

        return called

    return decorate


def replaced(settings: Settings, options: Mapping[str, Any]) -> Settings:
    """Settings with others in their place, by name, wherever in a group they are.

    Raises:
      InputError: a name that there is not.
    """
    known = flatten(settings)
    for name in options.keys() - known.keys():
        raise InputError(f"{type(settings).__name__} has no {name}{did_you_mean(name, known)}")
    return _replaced(settings, options)


def _replaced(settings: Any, options: Mapping[str, Any]) -> Any:
    hints, changes = get_type_hints(type(settings)), {}
    for setting in fields(settings):
        value = getattr(settings, setting.name)
        if is_dataclass(value):
            changes[setting.name] = _replaced(value, options)
        elif setting.name in options:
            new = options[setting.name]
            path = hints[setting.name] is Path or Path in get_args(hints[setting.name])
            changes[setting.name] = Path(new) if path and isinstance(new, str) else new
    return replace(settings, **changes)


def flatten(settings: Any) -> dict[str, Any]:
    """All settings by name, those of nested groups among them, in the order in which they are declared."""
    return {setting.name: value for setting, value in _leaves(settings)}


def as_json(settings: Any) -> dict[str, Any]:
    """All settings by name, as JSON values."""
    return {setting.name: _plain(value) for setting, value in _leaves(settings)}


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
