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
from lesa_jax.comparison.asking import HARNESS, harness_version
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.data.sources import HUB, find_files, split_shares

# Settings that say where something lies; what it holds counts.
PATHS = ("model", "revision", "text", "retain_text", "train_data", "replay_data")
COMPUTING = ("lesa_jax", "jax")
FORMAT = 2  # of the folder; 1 kept no losses of single windows


@dataclass(frozen=True)
class TrainingData:
    """What is trained on, or replayed.

    Attributes:
      files: in order; its name where it lies on the hub.
      mixed: of a mixture, what its files do not tell: each part's name on the hub or number of files, and its share.
    """

    files: tuple[Path, ...] | str
    mixed: tuple[tuple[str | int, float], ...]

    @property
    def local(self) -> tuple[Path, ...]:
        """Its files that are here."""
        return () if isinstance(self.files, str) else self.files

    def content(self, digests: Mapping[Path, str]) -> Any:
        """What it holds, as JSON, with the digests of its files."""
        content = self.files if isinstance(self.files, str) else [digests[file] for file in self.files]
        return {"files": content, "parts": [list(part) for part in self.mixed]} if self.mixed else content


@dataclass(frozen=True)
class Basis:
    """The files that a comparison reads, as they were when it began.

    Attributes:
      text: the held-out text.
      retained: that of what the model knew before, if there is one.
      model: the original's files that decide what it computes and which tokens it sees.
      data: the training data; of no files where nothing is trained.
      replayed: the data that is replayed, if any is.
      versions: of programs, beside those that every comparison depends on.
      stamps: tell the files from later ones of the same names.
    """

    text: bytes
    retained: bytes | None
    model: tuple[Path, ...]
    data: TrainingData
    replayed: TrainingData | None
    versions: Mapping[str, str | None]
    stamps: Mapping[Path, Stamp]

    def digests(self) -> dict[str, Any]:
        """What the files hold, each read once, several at a time.

        Raises:
          InputError: one of them cannot be read, or changes meanwhile.
        """
        replayed = () if self.replayed is None else self.replayed.local
        found = digest_each((*self.model, *self.data.local, *replayed))
        return {
            "text": digest_bytes(self.text),
            **({} if self.retained is None else {"retained": digest_bytes(self.retained)}),
            "model": {file.name: found[file] for file in self.model},
            "data": self.data.content(found),
            **({} if self.replayed is None else {"replayed": self.replayed.content(found)}),
            "versions": {
                **{name: version(name) for name in COMPUTING},
                "device": jax.default_backend(),
                **self.versions,
            },
        }

    def check_unchanged(self) -> None:
        """Raises InputError where a file is no longer the one that the comparison began with."""
        for file, known in self.stamps.items():
            if not file.exists() or stamp(file.stat()) != known:
                raise InputError(f"{file}: changed during the comparison; put it back and run the same command again")


def find_basis(settings: CompareSettings, text: bytes, checkpoint: Checkpoint, retained: bytes | None = None) -> Basis:
    """The texts, and the files that the settings name."""
    model = (*checkpoint.files, checkpoint.folder / "config.json", *tokenizer_files(checkpoint.folder))
    training = settings.training
    data = find_data("--train-data", training.train_data or "")
    replayed = None if training.replay_data is None else find_data("--replay-data", training.replay_data)
    files = (*model, *data.local, *(() if replayed is None else replayed.local))
    versions = {} if settings.tasks is None else {HARNESS: harness_version()}
    return Basis(text, retained, model, data, replayed, versions, {file: stamp(file.stat()) for file in files})


def find_data(option: str, data: str) -> TrainingData:
    """What an option names; nothing where that is empty."""
    with called_here("--data", option):
        parts = split_shares(data)
        mixture = len(parts) > 1
        files = data if not data or (data.startswith(HUB) and not mixture) else tuple(find_files(data))
        told = ((name if name.startswith(HUB) else len(find_files(name)), share) for name, share in parts if mixture)
        return TrainingData(files, tuple(told))


@contextmanager
def called_here(option: str, name: str) -> Iterator[None]:
    """A block whose errors are about an option that a comparison calls otherwise."""
    try:
        yield
    except InputError as error:
        raise InputError(re.sub(rf"{option}(?![\w-])", name, str(error))) from None


def record(settings: CompareSettings, digests: Mapping[str, Any]) -> dict[str, Any]:
    """compare.json."""
    options = {name: value for name, value in deciding(settings).items() if name not in PATHS}
    return {"format": FORMAT, **options, "made_of": digests}


def check_basis(output: Path, form: Any, earlier: Any, now: Mapping[str, Any]) -> None:
    """Refuses to go on where something that the comparison was made of has changed, and names it.

    Args:
      output: its folder.
      form: `format` of its compare.json.
      earlier, now: what it was made of, and would be.
    """
    if form != FORMAT:
        raise InputError(
            f"--output {output}: its comparison was begun by another version of lesa_jax, which kept other things "
            f"(format {form or 1}, now {FORMAT}); remove that folder, or choose another --output"
        )
    remedy = "put back what it began with, remove that folder, or choose another --output"
    if not isinstance(earlier, Mapping):
        raise InputError(f"--output {output}: its comparison does not say what it was made of; {remedy}")
    texts = {"text": "held-out text", "retained": "retained text", "data": "training data", "replayed": "replayed data"}
    for part, words in texts.items():
        if earlier.get(part) != now.get(part):
            raise InputError(f"--output {output}: its comparison is of another {words} than there is now; {remedy}")
    for part, words in (("model", "its comparison is of another model"), ("versions", "it was made by other versions")):
        before, after = earlier.get(part), now[part]
        before = before if isinstance(before, Mapping) else {}
        for name in {**before, **after}:
            if name == HARNESS and not (name in before and name in after):
                continue  # one of the two has no --tasks, which its settings say
            if before.get(name) != after.get(name):
                what = name if part == "model" else f"{name} {before.get(name)}, now {after.get(name)}"
                raise InputError(f"--output {output}: {words} ({what}); {remedy}")
