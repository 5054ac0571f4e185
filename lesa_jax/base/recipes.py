"""Options from a file: a command line that was written down, or what an earlier run recorded of its own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError, did_you_mean
from lesa_jax.base.files import read_object
from lesa_jax.base.settings import flatten, option

RECIPE = "--recipe"
# What a document says, with which the options of the command line go: the options that it stands for.
Recorded = Callable[[Mapping[str, Any], Path], Mapping[str, Any]]


def settings_of(document: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    """Of a record of an earlier run its settings, of any other document all of it."""
    settings = document.get("settings")
    return settings if isinstance(settings, dict) else document


def with_recipe(argv: Sequence[str], settings: type, recorded: Recorded = settings_of) -> list[str]:
    """The command line with what stands in the file that it names as --recipe; options beside that win.

    Args:
      argv: as given.
      settings: the dataclass of the command's options, all with defaults.
      recorded: of a document, the options that it stands for; for an option that is no switch, true says that there was
        one, whose value is not recorded, and false that there was none.

    Raises:
      InputError: no such file, no options in it, one that the command has not, or one whose value must be given.
    """
    rest, file = taken_out(argv)
    if file is None:
        return rest
    options, defaults, given = recorded(read_object(RECIPE, file), file), flatten(settings()), f"{RECIPE} {file}"
    words = []
    for name, value in options.items():
        key = str(name).lstrip("-").replace("-", "_")
        if key not in defaults:
            raise InputError(f"{given}: no option {name}{did_you_mean(key, defaults)}")
        if isinstance(value, bool) and not isinstance(defaults[key], bool):  # no switch
            if value and not any(word.split("=")[0] == option(key) for word in rest):
                raise InputError(f"{given}: was made with {option(key)}, whose value it does not hold; name it, too")
        elif value is not None:
            words += as_words(key, value, given)
    return [*words, *rest]


def taken_out(argv: Sequence[str]) -> tuple[list[str], Path | None]:
    """The command line without --recipe and its file, and that file.

    Raises:
      InputError: it has no file, or there are two.
    """
    rest, files, words = [], [], iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name != RECIPE:
            rest.append(word)
        elif file := value if equals else next(words, ""):
            files.append(Path(file))
        else:
            raise InputError(f"{RECIPE}: name a file of options")
    if len(files) > 1:
        raise InputError(f"{RECIPE}: is given twice; write one file of both")
    return rest, files[0] if files else None


def as_words(key: str, value: Any, given: str) -> list[str]:
    """How a command line says it."""
    match value:
        case bool():
            return [option(key if value else f"no_{key}")]
        case list() if not any(isinstance(item, list | dict) for item in value):
            return [option(key), *map(str, value)]
        case str() | int() | float() | Path():
            return [option(key), str(value)]
        case _:
            raise InputError(f"{given}: {key} is {type(value).__name__}; expected a word, a number, true or false")
