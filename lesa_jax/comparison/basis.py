"""What a comparison is about, by content: its text, its model, its training data, and what computes with them.

compare.json keeps all of it, with the settings. So a folder is gone on with only where nothing of it has changed,
wherever the files lie by now; and every part of a comparison is told by compare.json and what is its own (`kept`).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from lesa_jax.base.digests import Stamp, digest_bytes, digest_each, stamp
from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import deciding
from lesa_jax.checkpoint.companions import tokenizer_files
from lesa_jax.checkpoint.reader import Checkpoint
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.data.sources import HUB, find_files

PATHS = ("model", "revision", "text", "train_data")  # settings that say where something lies; what it holds counts
COMPUTING = ("lesa_jax", "jax")


@dataclass(frozen=True)
class Basis:
    """The files that a comparison reads, as they were when it began.

    Attributes:
      text: the held-out text.
      model: the original's files that decide what it computes and which tokens it sees.
      data: the training data; its name where it lies on the hub.
      stamps: tell the files from later ones of the same names.
    """

    text: bytes
    model: tuple[Path, ...]
    data: tuple[Path, ...] | str
    stamps: Mapping[Path, Stamp]

    def digests(self) -> dict[str, Any]:
        """What the files hold, each read once, several at a time.

        Raises:
          InputError: one of them cannot be read, or changes meanwhile.
        """
        data = () if isinstance(self.data, str) else self.data
        found = digest_each((*self.model, *data))
        return {
            "text": digest_bytes(self.text),
            "model": {file.name: found[file] for file in self.model},
            "data": self.data if isinstance(self.data, str) else [found[file] for file in data],
            "versions": {**{name: version(name) for name in COMPUTING}, "device": jax.default_backend()},
        }

    def check_unchanged(self) -> None:
        """Raises InputError where a file is no longer the one that the comparison began with."""
        for file, known in self.stamps.items():
            if not file.exists() or stamp(file.stat()) != known:
                raise InputError(f"{file}: changed during the comparison; put it back and run the same command again")


def find_basis(settings: CompareSettings, text: bytes, checkpoint: Checkpoint) -> Basis:
    """The files that the settings name."""
    model = (*checkpoint.files, checkpoint.folder / "config.json", *tokenizer_files(checkpoint.folder))
    data = settings.training.train_data or ""
    with called_here("--data", "--train-data"):
        files = data if not data or data.startswith(HUB) else tuple(find_files(data))
    stamps = {file: stamp(file.stat()) for file in (*model, *(() if isinstance(files, str) else files))}
    return Basis(text, model, files, stamps)


@contextmanager
def called_here(option: str, name: str) -> Iterator[None]:
    """A block whose errors are about an option that a comparison calls otherwise."""
    try:
        yield
    except InputError as error:
        raise InputError(re.sub(rf"{option}(?![\w-])", name, str(error))) from None


def record(settings: CompareSettings, digests: Mapping[str, Any]) -> dict[str, Any]:
    """compare.json."""
    return {name: value for name, value in deciding(settings).items() if name not in PATHS} | {"made_of": digests}


def check_basis(output: Path, earlier: Any, now: Mapping[str, Any]) -> None:
    """Refuses to go on where something that the comparison was made of has changed, and names it."""
    remedy = "put back what it began with, remove that folder, or choose another --output"
    if not isinstance(earlier, Mapping):
        raise InputError(f"--output {output}: its comparison does not say what it was made of; {remedy}")
    for part, words in (("text", "held-out text"), ("data", "training data")):
        if earlier.get(part) != now[part]:
            raise InputError(f"--output {output}: its comparison is of another {words} than there is now; {remedy}")
    for part, words in (("model", "its comparison is of another model"), ("versions", "it was made by other versions")):
        before, after = earlier.get(part), now[part]
        before = before if isinstance(before, Mapping) else {}
        for name in {**before, **after}:
            if before.get(name) != after.get(name):
                what = name if part == "model" else f"{name} {before.get(name)}, now {after.get(name)}"
                raise InputError(f"--output {output}: {words} ({what}); {remedy}")
