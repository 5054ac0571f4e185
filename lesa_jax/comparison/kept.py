"""What a comparison keeps for later calls, each part with the digest of all that it was made from: its origin.

A part whose origin is not that of now is not there: it is made again. So is one that cannot be read.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from lesa_jax.base.digests import digest
from lesa_jax.base.files import read_json, write_text
from lesa_jax.comparison.code import method_digest
from lesa_jax.comparison.folder import COMPARISON, ROWS
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import Variant
from lesa_jax.planning.methods import find_method
from lesa_jax.tracking.log import CURVE, METRICS, TENSORBOARD, WINDOWS
from lesa_jax.training.folder import FINAL

Value = TypeVar("Value")

NAMES = ("also", "control")  # of a variant: what other rows there are
# What a training writes into its folder.
RUN_PARTS = ("run.json", METRICS, WINDOWS, CURVE, TENSORBOARD, "checkpoints", FINAL, "run.lock")


def origin(settings: CompareSettings, variant: Variant, *more: Any) -> str:
    """The digest of what a part of the comparison is made from: all that its parts share, its row, and `more`."""
    row = {name: value for name, value in asdict(variant).items() if name not in NAMES}
    code = None if variant.is_original else [method_digest(find_method(name)) for name in method_names(variant)]
    return digest([read_json(settings.output / COMPARISON.file, "it was there before"), row, code, *more])


def method_names(variant: Variant) -> list[str]:
    return [variant.method] if variant.copier is None else [variant.copier]


def read(path: Path, made_from: str, parse: Callable[[Mapping[str, Any]], Value]) -> Value | None:
    """What a file keeps, if it was made from this and can be read; otherwise it is as if there were none."""
    try:
        value = json.loads(path.read_text("utf-8"), parse_constant=refuse)
        return parse(value) if value["made_from"] == made_from else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def write(path: Path, made_from: str, value: Mapping[str, Any]) -> None:
    """Keeps a value of numbers that are finite, or None."""
    text = json.dumps({"made_from": made_from, **value}, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def note(folder: Path) -> Path:
    """The file that says what a folder in models/ or runs/ was made from; written before the folder is made."""
    return folder.parent.parent / ROWS / f"{folder.name}.{folder.parent.name}.json"


def is_from(folder: Path, made_from: str) -> bool:
    """Whether a folder was made from this, or is yet to be made."""
    return read(note(folder), made_from, bool) is not None


def prepare_run(folder: Path, made_from: str) -> None:
    """Makes way for a run: an earlier one stays, to be gone on with, only if it is of the same origin."""
    if is_from(folder, made_from):
        return
    if (folder / RUN_PARTS[0]).exists():
        for name in RUN_PARTS:
            remove(folder / name)
        remove_if_empty(folder)
    write(note(folder), made_from, {})


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
