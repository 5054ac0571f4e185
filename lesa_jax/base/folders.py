"""Folders that are whole or not there, and of which nothing is ever removed but what this program wrote.

A folder is made under a hidden name beside its destination and gets its name in one rename when every byte is on the
disk. A list of its files goes with it, so that a later run can tell what it may replace. While a folder is made, a lock
beside it keeps other processes away; what a killed process left is found by its hidden name.
"""

import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lesa_jax.base.errors import InputError, Terminated
from lesa_jax.base.files import LONGEST_NAME, beside, partial, sync, write_json
from lesa_jax.base.locks import alone

MANIFEST = ".lesa_jax.json"  # what was written into a folder, with sizes; empty while it is being made


@contextmanager
def claim(output: Path) -> Iterator[None]:
    """A block in which no other process makes this folder, which is known to be possible.

    Raises:
      InputError: another process is at it, or no folder can get this name.
    """
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = beside(output, "lock")
    with alone(lock, f"--output {output}: another process is writing it; wait for that one, or choose another folder"):
        done = True
        try:
            restore(output)
            check_renaming(output)
            for folder in abandoned(output.parent):
                if folder != partial(output):
                    print(f"{folder} was left by a process that died; remove it when you like", file=sys.stderr)
            yield
        except Terminated:
            done = not partial(output).exists()
            raise
        finally:
            if done:
                lock.unlink(missing_ok=True)  # while it is held: whoever comes then makes a new one


@contextmanager
def publish(output: Path, overwrite: bool = False, job: str | None = None) -> Iterator[Path]:
    """A hidden folder beside `output` that takes its name when the block ends well and vanishes when it does not.

    The caller sees to it that no other process does the same, by `claim` or a lock of its own.

    Args:
      output: the folder to be made. An empty one may be there.
      overwrite: whether an earlier folder of this program may go, if nothing else is in it.
      job: a digest of all that the content depends on, of callers that go on with what a process left that died at the
        same job, or was ended by SIGTERM; what was left of any other is removed.

    Raises:
      InputError: something else has taken the name meanwhile. It stays, and so does what was made.
    """
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    hidden = partial(output)
    if job is not None and unfinished_job(hidden) == job:
        print(f"going on with {hidden}, left by a process that died", file=sys.stderr)
    else:
        remove_leftover(hidden)
        hidden.mkdir()
        write_json(hidden / MANIFEST, {"files": {}} | ({} if job is None else {"job": job}))
    try:
        yield hidden
        seal(hidden)
    except BaseException as error:
        if job is None or not isinstance(error, Terminated):
            shutil.rmtree(hidden, ignore_errors=True)
        raise
    give_name(hidden, output, overwrite)


def unfinished_job(hidden: Path) -> str | None:
    """The job that a folder was left by, if it says so."""
    if hidden.is_symlink() or not hidden.is_dir():
        return None
    try:
        return json.loads((hidden / MANIFEST).read_text("utf-8")).get("job")
    except (OSError, ValueError, AttributeError):
        return None


def seal(folder: Path) -> None:
    """Lists a folder's files in it, and waits until all are on the disk."""
    paths = sorted(folder.rglob("*"))
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths if path.is_file()}
    sizes.pop(MANIFEST)
    for path in paths:
        sync(path)
    write_json(folder / MANIFEST, {"files": sizes})  # last, so that whatever is younger is not ours


def give_name(hidden: Path, output: Path, overwrite: bool) -> None:
    """Renames; `output` may be missing, empty, or with `overwrite` an earlier folder of this program."""
    old = beside(output, "replaced")
    try:
        if overwrite and output.is_dir() and foreign(output) is None:
            output.rename(old)
        hidden.rename(output)
    except OSError as error:
        others = (output.with_name(f"{output.name}-{number}") for number in itertools.count(1))
        kept = next(path for path in others if not os.path.lexists(path))
        hidden.rename(kept)
        raise InputError(
            f"--output {output}: somebody else has made it meanwhile ({error.strerror}), and it stays; what was made "
            f"here is in {kept}"
        ) from None
    sync(output.parent)
    remove_own(old)


def foreign(folder: Path) -> str | None:
    """What is in a folder that this program did not write there, or that was changed since: one of it, or None."""
    try:
        manifest = folder / MANIFEST
        listed, written = json.loads(manifest.read_text("utf-8"))["files"], manifest.stat().st_mtime_ns
        ours = {*listed, MANIFEST, *(parent.as_posix() for name in listed for parent in Path(name).parents)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        listed, written, ours = {}, 0, set()
    for path in sorted(folder.rglob("*")):
        name, stat = path.relative_to(folder).as_posix(), path.lstat()
        changed = name in listed and (stat.st_size != listed[name] or stat.st_mtime_ns > written)
        if changed or name not in ours:
            return name
    return None


def remove_own(folder: Path) -> None:
    """Removes what this program wrote into a folder, and the folder itself if nothing else is there."""
    if not (folder / MANIFEST).is_file():
        return
    for name in [*json.loads((folder / MANIFEST).read_text("utf-8"))["files"], MANIFEST]:
        (folder / name).unlink(missing_ok=True)
    for inside in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        _remove_empty(inside)
    if not _remove_empty(folder):
        print(f"{folder} keeps what was not written by lesa_jax", file=sys.stderr)


def _remove_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def remove_leftover(hidden: Path) -> None:
    """Removes what a killed process left; nobody else has the folder's lock.

    Raises:
      InputError: something else goes by the hidden name.
    """
    if not os.path.lexists(hidden):
        return
    names = {path.name for path in hidden.iterdir()} if hidden.is_dir() else set()
    if not hidden.is_dir() or not (MANIFEST in names or names <= {partial(hidden / MANIFEST).name}):
        raise InputError(f"{hidden} is in the way and was not written by lesa_jax; move it elsewhere")
    print(f"removing {hidden}, left by a process that died", file=sys.stderr)
    shutil.rmtree(hidden)


def abandoned(parent: Path) -> list[Path]:
    """Unfinished folders of processes that died, among a folder's entries."""
    found = []
    for hidden in sorted(parent.glob(partial(Path("*")).name)):
        lock = hidden.with_suffix(".lock")
        if (hidden / MANIFEST).is_file() and lock.exists():
            try:
                with FileLock(lock, blocking=False):
                    found.append(hidden)
            except Timeout:
                pass
    return found


def restore(output: Path) -> None:
    """Ends what a killed process was in the middle of: it had moved an earlier folder aside, or was removing that."""
    for old in (beside(output, "aside"), beside(output, "replaced")):
        if old.is_dir() and not output.exists():
            old.rename(output)
        elif old.is_dir():
            remove_own(old)


def check_renaming(output: Path) -> None:
    """Refuses what no folder can be renamed onto, as a mount point, by trying.

    Raises:
      InputError: names a folder inside it instead.
    """
    if not output.is_dir():
        return
    aside = beside(output, "aside")
    try:
        output.rename(aside)
    except OSError as error:
        raise InputError(
            f"--output {output}: cannot be replaced by another folder ({error.strerror}), as a mount point cannot; "
            f"choose a folder inside it, such as {output / 'model'}"
        ) from None
    aside.rename(output)


def check_output(output: Path, source: Path, overwrite: bool, nbytes: int) -> None:
    """Refuses an output that is in the way, in danger or too small, before any work.

    Args:
      output: the folder to be made.
      source: the checkpoint's folder, which must survive.
      overwrite: whether an earlier output of this program may be replaced.
      nbytes: bytes that will be written.

    Raises:
      InputError: what is wrong, and the remedy.
    """
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in output.parts):
        raise InputError(
            f"--output: a name of more than {LONGEST_NAME} bytes, which no disk takes; choose a shorter one"
        )
    check_apart(output, source)
    check_replaceable(output, overwrite)
    parent = nearest_folder(output.resolve().parent)
    check_writable(output, parent)
    free = free_space(parent) + occupied(partial(output.resolve()))
    if free < nbytes:
        raise InputError(
            f"--output {output}: needs {nbytes / 1e9:.2f} GB but {parent} has {free / 1e9:.2f} GB free; "
            "free some space or choose another disk"
        )


def check_apart(output: Path, model: Path) -> None:
    """Refuses an output that is the model's folder, lies in it or holds it: the model must survive."""
    here, there = output.resolve(), model.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise InputError(f"--output {output} and the model's folder {model} overlap; choose another output")


def check_replaceable(output: Path, overwrite: bool) -> None:
    """Refuses an output that is a file, or a folder in which something is that may not go."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; choose a folder that does not exist yet")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise InputError(f"--output {output} is not empty; choose another folder or add --overwrite")
        if (found := foreign(output)) is not None:
            raise InputError(
                f"--output {output} holds {found}, which lesa_jax did not write there or which was changed since; move "
                "it away, or choose another folder"
            )


def check_writable(output: Path, parent: Path) -> None:
    """Refuses an output that cannot be made in `parent`."""
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"--output {output}: no permission to write in {parent}; choose another folder")


def nearest_folder(path: Path) -> Path:
    """What there is of a path that is still to be made: itself, or the first of its parents that exists."""
    path = path.resolve()
    return next(place for place in (path, *path.parents) if place.exists())


def occupied(folder: Path) -> int:
    """Bytes on the disk that an unfinished folder takes, which are written over or removed."""
    if folder.is_symlink() or not folder.is_dir():
        return 0
    return sum(512 * path.stat().st_blocks for path in folder.rglob("*") if path.is_file())


def free_space(path: Path) -> int:
    """Bytes that can still be written on the disk of a path, which need not exist yet."""
    return shutil.disk_usage(nearest_folder(path)).free
