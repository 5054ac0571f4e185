"""The memory that this process may have, and how it gives back what it has."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that may still be taken: of the machine, or of what the process's container leaves of its share.

    Pages that only cache files count as free.
    """
    limits = [limit - used for limit, used in (_version_2(), _version_1()) if limit is not None]
    return max(0, min([_available(), *limits]))


def cores() -> int:
    """How many the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _available() -> int:
    for line in _lines(PROC / "meminfo"):
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # not Linux


def _version_2() -> tuple[int | None, int]:
    """Limit and use, without what only caches files, of a control group of version 2."""
    folder = _group("0::", CGROUPS)
    return _number(folder / "memory.max"), _used(folder / "memory.current", folder / "memory.stat", "inactive_file")


def _version_1() -> tuple[int | None, int]:
    folder = _group("memory", CGROUPS / "memory")
    limit = _number(folder / "memory.limit_in_bytes")
    used = _used(folder / "memory.usage_in_bytes", folder / "memory.stat", "total_inactive_file")
    return (limit if limit is not None and limit < 1 << 60 else None), used  # no limit is a number, too


def _group(controller: str, root: Path) -> Path:
    """The folder of this process's group; a container may see its own as the root."""
    for line in _lines(PROC / "self" / "cgroup"):
        _, names, path = line.split(":", 2)
        if (controller == "0::" and line.startswith("0::")) or controller in names.split(","):
            folder = root / path.strip("/")
            return folder if folder.is_dir() else root
    return root


def _used(total: Path, stat: Path, cached: str) -> int:
    files = next((int(line.split()[1]) for line in _lines(stat) if line.startswith(cached + " ")), 0)
    return max(0, (_number(total) or 0) - files)


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


TRIM, MAP = -1, -3  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD


@contextmanager
def arrays_given_back() -> Iterator[None]:
    """A block in which memory of 1 MB and more goes back to the system as soon as it is free.

    The C library keeps ever larger pieces otherwise, for each thread, which the next arrays do not fit into: half of
    the memory at width 1024. Afterwards it is as if it had kept the largest ones that it does.
    """
    try:
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        library.mallopt(MAP, 1 << 20)
    except (OSError, AttributeError):  # only glibc has it
        yield
        return
    try:
        yield
    finally:
        library.mallopt(MAP, 1 << 25)
        library.mallopt(TRIM, 1 << 26)
