"""What of a grown checkpoint is on the disk already, so that a run that was killed goes on where it stopped."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from lesa_jax.base.files import sync
from lesa_jax.families.kinds import WeightKind
from lesa_jax.growth.result import KindResult

FILE = ".lesa_jax.done.jsonl"  # in the hidden folder; gone when that gets its name


class Journal:
    """A line for each piece of work whose bytes are on the disk: a kind with what was measured on it, or tensors.

    Attributes:
      kinds: what was measured, page by page, by `key`.
      tensors: names of others that are written.
    """

    def __init__(self, folder: Path):
        self.path = folder / FILE
        self.kinds: dict[str, list[KindResult]] = {}
        self.tensors: set[str] = set()
        text = self.path.read_text("utf-8") if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # the process may have died in the middle of a line
        for line in whole.splitlines():
            self._take(json.loads(line))
        self._file = self.path.open("w", encoding="utf-8")
        self._append(whole)

    def finish_kind(self, kind: WeightKind, results: Sequence[KindResult]) -> None:
        self._add({"kind": key(kind), "results": [astuple(result) for result in results]})

    def finish_tensors(self, names: Iterable[str]) -> None:
        self._add({"tensors": list(names)})

    def forget(self) -> None:
        """What is written is about to be changed: whoever goes on begins anew."""
        self._file.truncate(0)
        self._file.seek(0)
        self._append("")

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        self.close()
        self.path.unlink()

    def _add(self, entry: dict[str, Any]) -> None:
        self._take(entry)
        self._append(json.dumps(entry) + "\n")

    def _take(self, entry: dict[str, Any]) -> None:
        if "kind" in entry:
            self.kinds[entry["kind"]] = [KindResult(*result) for result in entry["results"]]
        self.tensors.update(entry.get("tensors", ()))

    def _append(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()
        os.fsync(self._file.fileno())
        sync(self.path.parent)


def key(kind: WeightKind) -> str:
    """Names a kind among those of a job."""
    part = "" if kind.part is None else kind.part.name
    return f"{kind.stack.template} {kind.stack.starts[0]} {kind.inner} {part}"
