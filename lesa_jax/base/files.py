"""Small files and folders, read with one-line errors and written whole or not at all.

A folder is written under a hidden name beside its destination and gets its name in one rename when every byte is on the
disk, so whatever carries the final name is complete.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError


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
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}; download it again")
    return value


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


def partial(path: Path) -> Path:
    """Where a file lies while it is written; always there, so that the next process writes over a killed one's."""
    return path.with_name(f".{path.name}.partial")


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file beside `path`, which gets its name when every byte is on the disk."""
    beside = partial(path)
    try:
        write(beside)
        sync(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a small file; under its name is the whole of it, on the disk, or what was there before."""
    replace_file(path, lambda beside: beside.write_text(text, "utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def publish(output: Path, replace: bool = True) -> Iterator[Path]:
    """A hidden folder beside `output` that takes its name when the block ends well and vanishes when it does not.

    An earlier folder of that name is moved aside first and deleted last, so that the name is never half-written.

    Args:
      output: the folder to be made.
      replace: without it, a folder that another process has made meanwhile stays, and this one vanishes.
    """
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    hidden = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
    try:
        yield hidden
        hidden.chmod(0o777 & ~current_umask())  # mkdtemp's folders are private
        for file in hidden.iterdir():
            sync(file)
        sync(hidden)
        if replace:
            replace_folder(output, hidden)
        else:
            keep_first(output, hidden)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def replace_folder(output: Path, hidden: Path) -> None:
    """Gives `hidden` the name `output`, and removes what had it."""
    old = hidden.with_name(hidden.name.replace(".partial-", ".replaced-"))
    if output.exists():
        output.rename(old)
    hidden.rename(output)
    sync(output.parent)
    shutil.rmtree(old, ignore_errors=True)


def keep_first(output: Path, hidden: Path) -> None:
    """Gives `hidden` the name `output`, or removes it where that folder is there by now."""
    try:
        hidden.rename(output)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        shutil.rmtree(hidden, ignore_errors=True)
    sync(output.parent)


def nearest_folder(path: Path) -> Path:
    """What there is of a path that is still to be made: itself, or the first of its parents that exists."""
    path = path.resolve()
    return next(place for place in (path, *path.parents) if place.exists())


def free_space(path: Path) -> int:
    """Bytes that can still be written on the disk of a path, which need not exist yet."""
    return shutil.disk_usage(nearest_folder(path)).free


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's entries (names, renames), are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
