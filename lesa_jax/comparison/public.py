"""What a table may say: where somebody's files lie is nobody else's business, their names are enough."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lesa_jax.base.settings import listed
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.data.sources import HUB

# The folders of a path from the root, from home or from above: all of it but its last name.
FOLDERS = re.compile(r"(?<![\w./~-])(?!//)(?:(?:\.\./)+|~?/)(?:[^\s/:;,'\"()]+/)*(?=[^\s/])")


def public(settings: CompareSettings, error: Exception | str) -> str:
    """A message as one line that names files by their names, and those of the comparison as OUTPUT/..."""
    text = " ".join(str(error).split())
    for path, name in sorted(known_paths(settings), key=lambda both: -len(both[0])):
        # A bare name may be a word of the message; before a slash it is none.
        end = r"(?![\w.-])" if "/" in path else r"(?=/)"
        text = re.sub(rf"(?<![\w./~-]){re.escape(path)}{end}", lambda _, name=name: name, text)
    return FOLDERS.sub("", text)


def known_paths(settings: CompareSettings) -> Iterator[tuple[str, str]]:
    """Paths that messages may hold, and what each is called."""
    named = [(settings.output, "OUTPUT")]
    if settings.model is not None:
        named.append((Path(settings.model), Path(settings.model).resolve().name))
    training = settings.training
    data = [*data_parts(training.train_data), *data_parts(training.replay_data)]
    named += [(Path(part), Path(part).name) for part in data]
    for path, name in named:
        for form in {str(path), str(path.absolute()), str(path.resolve())}:
            yield form, name


def shown_settings(settings: CompareSettings) -> CompareSettings:
    """The settings for a command that anybody may see: paths from elsewhere than below here are names."""
    training = settings.training
    return replace(
        settings,
        model=None if settings.model is None else shown(settings.model),
        text=None if settings.text is None else Path(shown(str(settings.text))),
        output=Path(shown(str(settings.output))),
        training=replace(
            training,
            train_data=shown_data(training.train_data),
            replay_data=shown_data(training.replay_data),
            retain_text=None if training.retain_text is None else Path(shown(str(training.retain_text))),
        ),
    )


def shown(path: str) -> str:
    below = not Path(path).is_absolute() and not path.startswith("~") and ".." not in Path(path).parts
    return path if below or path.startswith(HUB) else Path(path).resolve().name


def shown_data(data: str | None) -> str | None:
    return ",".join(map(shown, data_parts(data))) or None


def data_parts(data: str | None) -> list[str]:
    if data is None or data.startswith(HUB) or Path(data).exists():
        return [] if data is None else [data]
    return listed(data)
