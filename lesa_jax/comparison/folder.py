"""The folder of a comparison: what lies where, and which of several processes may write it.

compare.json has the settings, models/ the grown checkpoints, rows/ what was measured (NAME-SEED.json) and trained
(NAME-SEED.curve.json), runs/ the training runs, tokens/ the training data. Locks go with the process that holds them.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock, Timeout

from lesa_jax import demo
from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json, write_json, write_text
from lesa_jax.comparison.settings import CompareSettings
from lesa_jax.comparison.variants import BASE, Variant

SETTINGS_FILE = "compare.json"
START_LOCK = "start.lock"
MODELS = "models"
# Options that another call for the same output may change.
FREE = ("output", "methods", "placements", "seeds", "keep_models")


def make_output(output: Path) -> None:
    """Makes the folder where it is missing.

    Raises:
      InputError: it holds something else than a comparison.
    """
    if output.exists():
        names = {path.name for path in output.iterdir()} if output.is_dir() else {""}
        if names and names.isdisjoint({SETTINGS_FILE, START_LOCK}):
            raise InputError(f"--output {output}: exists and is no comparison; choose another folder")
    output.mkdir(parents=True, exist_ok=True)


def start(settings: CompareSettings) -> CompareSettings:
    """Keeps the settings of a new comparison, or recognises them; returns them with a text that lies on the disk.

    Raises:
      InputError: the folder holds a comparison with other settings.
    """
    path = settings.output / SETTINGS_FILE
    text = settings.output / "text.txt"
    record = {name: value for name, value in asdict(settings).items() if name not in FREE}
    record = json.loads(json.dumps(record, default=str))
    if path.exists():
        for name, value in read_json(path, "").items():
            if record.get(name) != value:
                option = f"--{name.replace('_', '-')}"
                raise InputError(
                    f"--output {settings.output}: its comparison has {option} {value}, now it is {record.get(name)}; "
                    "go on with the same options, or choose another folder"
                )
    else:
        (settings.output / "rows").mkdir(exist_ok=True)
        if settings.text is None:
            write_text(text, demo.evaluation_text())
        write_json(path, record)
    return settings if settings.text is not None else replace(settings, text=text)


@contextmanager
def turn(lock: Path, what: str) -> Iterator[None]:
    """A block that one process at a time is in; the others wait and say that one of them does `what`."""
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        print(f"waiting for another process, which {what}", file=sys.stderr)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def row_file(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    return settings.output / "rows" / f"{variant.name}-{seed}.json"


def curve_file(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    return settings.output / "rows" / f"{variant.name}-{seed}.curve.json"


def lock_file(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    """Held by the process that trains this variant."""
    return settings.output / "rows" / f"{variant.name}-{seed}.lock"


def model_folder(settings: CompareSettings, variant: Variant, seed: int) -> Path:
    """Where the model is that a training seed starts from."""
    if variant == BASE:
        assert settings.model is not None
        return Path(settings.model)
    return settings.output / MODELS / f"{variant.name}-{variant.start(seed)}"
