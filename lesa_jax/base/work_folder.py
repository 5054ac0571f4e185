"""The folder of work that may be interrupted: it keeps the settings that the work began with, and takes no others.

So the same command can be given again, and a command that would mix two results in one folder is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import partial, read_json, write_json
from lesa_jax.base.settings import option


@dataclass(frozen=True)
class Work:
    """A kind of work, and the words for it in messages.

    Attributes:
      name: what it is called: "run".
      file: the JSON file in its folder that keeps the settings; a folder without it is none of this work.
      foreign: what a folder of something else is: "not a run of lesa_jax.train".
      others: further names, any of which a folder of this work may have before that file.
      setting: how a setting is written in a message, of its {name}, {option} and {value}.
    """

    name: str
    file: str
    foreign: str
    others: frozenset[str] = frozenset()
    setting: str = "{option} {value}"

    def earlier(self, folder: Path) -> dict[str, Any] | None:
        """What the folder keeps of earlier work; None where there is none yet.

        Raises:
          InputError: the folder holds something else.
        """
        # Listed once, for another process of the same work may be writing the file at this very moment.
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else {""} if folder.exists() else set()
        if self.file in names:
            return read_json(folder / self.file, "")
        names.discard(partial(folder / self.file).name)
        if names and names.isdisjoint(self.others):
            raise InputError(f"--output {folder}: exists and is {self.foreign}; choose another folder")
        return None

    def check_same(self, folder: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Refuses to go on with other settings than the work began with."""
        for name in {**earlier, **now}:
            before, value = earlier.get(name), now.get(name)
            if before != value:
                was = self.setting.format(name=name, option=option(name), value=before)
                raise InputError(
                    f"--output {folder}: its {self.name} has {was}, now it is {value}; go on with the settings it "
                    "began with, or choose another folder"
                )

    def begin(self, folder: Path, now: Mapping[str, Any]) -> None:
        """Makes the folder and writes down what the work begins with, or finds that it is gone on with.

        Raises:
          InputError: the folder holds something else, or the same work with other settings.
        """
        earlier = self.earlier(folder)
        if earlier is None:
            folder.mkdir(parents=True, exist_ok=True)
            self.keep(folder, now)
        else:
            self.check_same(folder, earlier, now)

    def keep(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Writes down what new work begins with."""
        write_json(folder / self.file, record)
