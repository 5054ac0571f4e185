"""Small files, read with one-line errors and written whole or not at all."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lesa_jax.base.digests import digest_bytes
from lesa_jax.base.errors import InputError

LONGEST_NAME = 255  # bytes of a file's name, on every disk in use


def read_text(option: str, path: Path) -> str:
    """The text of a UTF-8 file that the user named with `option`, as training data are read: without a byte order
    mark, every line end as \\n.

    Raises InputError for a file that is missing, not UTF-8 text, or blank.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{option} {path}: cannot be read as UTF-8 text ({error})") from None
    if "\0" in text:
        raise InputError(f"{option} {path}: holds NUL bytes; expected a text file, convert UTF-16 to UTF-8")
    if not text.strip():
        raise InputError(f"{option} {path}: holds no text")
    return text


def read_json(path: Path, why: str) -> dict[str, Any]:
    """A JSON object from a small file inside a checkpoint folder."""
    inside(path)
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; {why}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}; download it again")
    return value


def read_object(option: str, path: Path) -> dict[str, Any]:
    """A JSON object, or the same in YAML, from a file that the user named with `option`.

    Raises InputError for a file that is missing or damaged, or holds something else.
    """
    text = read_text(option, path)
    try:
        value = _json_or_yaml(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{option} {path}: cannot be read as JSON or YAML ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{option} {path}: expected an object of names and values, found {type(value).__name__}")
    return value


def _json_or_yaml(text: str) -> Any:
    """Raises ValueError where it is neither."""
    try:
        return json.loads(text)  # much faster, where it is JSON
    except ValueError:
        import yaml  # slow to import, and most runs need none

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from None


def inside(path: Path, root: Path | None = None) -> Path:
    """The path itself, if following links does not lead out of `root`, by default its folder.

    The hub's cache is the one exception: `snapshots/REVISION/file` links to `blobs/HASH` two folders up.
    """
    folder = (root or path.parent).resolve()
    target = path.resolve()
    blobs = folder.parent.parent / "blobs"
    if target.is_relative_to(folder) or (folder.parent.name == "snapshots" and target.parent == blobs):
        return path
    raise InputError(f"{path}: links to {target}, outside the checkpoint's folder; put the file itself there")


def beside(path: Path, kind: str) -> Path:
    """A hidden name beside a path, for what belongs to it; a name too long for a disk is cut, and told by a digest."""
    name = f".{path.name}.{kind}"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{path.name[:40]}-{digest_bytes(os.fsencode(path.name))[:16]}.{kind}"
    return path.with_name(name)


def partial(path: Path) -> Path:
    """Where a file or folder lies while it is written; always there, so that the next process finds a killed one's."""
    return beside(path, "partial")


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file beside `path`, which gets its name when every byte is on the disk."""
    unfinished = partial(path)
    try:
        write(unfinished)
        sync(unfinished)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a small file; under its name is the whole of it, on the disk, or what was there before."""
    replace_file(path, lambda file: file.write_text(text, "utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's entries (names, renames), are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
