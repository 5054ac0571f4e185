"""Free memory, by the machine and by control groups of both versions."""

from pathlib import Path

import pytest

from lesa_jax.base import machine

GROUP_2 = {"memory.max": "3000000", "memory.current": "900000", "memory.stat": "anon 1\ninactive_file 400000\n"}
GROUP_1 = {
    "memory.limit_in_bytes": "3000000",
    "memory.usage_in_bytes": "900000",
    "memory.stat": "cache 1\ntotal_inactive_file 400000\n",
}
UNLIMITED_2 = GROUP_2 | {"memory.max": "max"}
UNLIMITED_1 = GROUP_1 | {"memory.limit_in_bytes": "9223372036854771712"}


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    8000 kB\n")
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "groups")
    return tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("line", "folder", "files", "free"),
    [
        ("", "nothing", {}, 8000 * 1024),
        ("0::/user/job", "user/job", GROUP_2, 2_500_000),
        ("0::/docker/abc", "", GROUP_2, 2_500_000),  # a container that sees its group as the root
        ("0::/user/job", "user/job", UNLIMITED_2, 8000 * 1024),
        ("9:memory:/job", "memory/job", GROUP_1, 2_500_000),
        ("9:memory:/job", "memory/job", UNLIMITED_1, 8000 * 1024),
        ("3:cpu,memory:/", "memory", GROUP_1, 2_500_000),
    ],
)
def test_free_memory_is_what_machine_and_group_leave(system, line, folder, files, free):
    (system / "proc" / "self" / "cgroup").write_text(f"{line}\n" if line else "")
    write(system / "groups" / folder, files)
    assert machine.free_memory() == free


def test_this_machine_has_some():
    assert 1e8 < machine.free_memory() < 1e14
