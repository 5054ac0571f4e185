"""Folders are whole or not there, and nothing of anybody else's is ever removed."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import partial
from lesa_jax.base.folders import MANIFEST, abandoned, check_output, claim, foreign, free_space, nearest_folder, publish


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make(output: Path, text: str = "ours", overwrite: bool = False) -> None:
    with publish(output, overwrite) as folder:
        (folder / "weights").write_text(text)
        (folder / "inside").mkdir()
        (folder / "inside" / "notes").write_text(text)


def killed(output: Path, code: str) -> None:
    """Another process that claims `output`, does something, and dies at once."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom lesa_jax.base import folders\n"
        f"output = Path(sys.argv[1])\nwith folders.claim(output):\n    {code}\n    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, output]).returncode == 9


UNFINISHED = "made = folders.publish(output); folder = made.__enter__(); (folder / 'weights').write_text('half')"


def test_the_name_comes_last(tmp_path):
    with publish(tmp_path / "deep" / "out") as folder:
        (folder / "weights").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep" / "out") == [MANIFEST, "weights"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_block_that_fails_leaves_nothing_and_keeps_what_was_there(tmp_path, error):
    make(tmp_path / "out", "old")

    def interrupted():
        with publish(tmp_path / "out", overwrite=True) as folder:
            (folder / "weights").write_text("new")
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "weights").read_text() == "old"


def test_an_earlier_folder_of_ours_is_replaced_when_asked_for(tmp_path):
    make(tmp_path / "out", "old")
    make(tmp_path / "out", "new", overwrite=True)
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "inside" / "notes").read_text() == "new"


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    make(tmp_path / "out")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_meanwhile_stays_and_so_does_the_result(tmp_path, overwrite):
    def made():
        with publish(tmp_path / "out", overwrite) as folder:
            (folder / "weights").write_text("hours of work")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "thesis.tex").write_text("years of work")

    with pytest.raises(InputError, match=r"somebody else has made it meanwhile .* is in .*out-1$"):
        made()
    assert names(tmp_path) == ["out", "out-1"]
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "out-1" / "weights").read_text() == "hours of work"


def test_a_file_in_the_way_stays(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="out-1"):
        make(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file"


@pytest.mark.parametrize("added", ["mine.txt", "checkpoints/mine", "inside/mine", "empty/"])
def test_what_others_put_into_a_folder_is_foreign(tmp_path, added):
    make(tmp_path / "out")
    assert foreign(tmp_path / "out") is None
    path = tmp_path / "out" / added
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if added.endswith("/") else path.write_text("mine")
    assert foreign(tmp_path / "out") == added.split("/")[0] or foreign(tmp_path / "out") == added
    with pytest.raises(InputError):
        make(tmp_path / "out", "new", overwrite=True)
    assert path.exists()
    assert (tmp_path / "out" / "weights").read_text() == "ours"


def test_a_file_of_ours_that_somebody_edited_is_foreign(tmp_path):
    make(tmp_path / "out")
    edited = tmp_path / "out" / "weights"
    edited.write_text("mine")  # of the same size
    later = (tmp_path / "out" / MANIFEST).stat().st_mtime_ns + 10**7
    os.utime(edited, ns=(later, later))
    assert foreign(tmp_path / "out") == "weights"


@pytest.mark.parametrize("manifest", ["", "[]", '{"files": 3}', '{"files": null}', "\0"])
def test_without_a_readable_list_everything_is_foreign(tmp_path, manifest):
    make(tmp_path / "out")
    (tmp_path / "out" / MANIFEST).write_text(manifest)
    assert foreign(tmp_path / "out") is not None


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path, capsys):
    killed(tmp_path / "out", UNFINISHED)
    assert names(tmp_path) == [".out.lock", ".out.partial"]
    with claim(tmp_path / "out"):
        make(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert "removing" in capsys.readouterr().err


def test_so_is_what_a_process_left_that_was_killed_before_its_list_had_a_name(tmp_path):
    (tmp_path / ".out.partial").mkdir()
    partial(tmp_path / ".out.partial" / MANIFEST).touch()
    make(tmp_path / "out", "new")
    assert (tmp_path / "out" / "weights").read_text() == "new"
    assert not (tmp_path / ".out.partial").exists()


def test_what_a_killed_process_left_under_another_name_is_named(tmp_path, capsys):
    killed(tmp_path / "other", UNFINISHED)
    assert abandoned(tmp_path) == [tmp_path / ".other.partial"]
    with claim(tmp_path / "out"):
        pass
    assert ".other.partial was left by a process that died" in capsys.readouterr().err
    assert ".other.partial" in names(tmp_path)
    with claim(tmp_path / "other"):
        assert abandoned(tmp_path) == []  # somebody is at it


def test_a_process_killed_between_two_names_loses_neither_folder(tmp_path):
    make(tmp_path / "out", "old")
    killed(tmp_path / "out", "output.rename(output.with_name('.out.replaced'))")
    with claim(tmp_path / "out"):
        assert (tmp_path / "out" / "weights").read_text() == "old"
    make(tmp_path / ".out.replaced", "older")
    with claim(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]


def test_a_hidden_folder_of_somebody_else_is_left_alone(tmp_path):
    partial(tmp_path / "out").mkdir()
    (partial(tmp_path / "out") / "mine").write_text("mine")
    with pytest.raises(InputError, match="was not written by lesa_jax; move it elsewhere"):
        make(tmp_path / "out")
    assert (partial(tmp_path / "out") / "mine").exists()


def test_two_cannot_make_one_folder(tmp_path):
    with (
        claim(tmp_path / "out"),
        pytest.raises(InputError, match="another process is writing it"),
        claim(tmp_path / "out"),
    ):
        pass
    with claim(tmp_path / "out"):
        pass
    assert names(tmp_path) == []


def test_what_cannot_be_renamed_is_found_before_work(tmp_path, monkeypatch):
    """As a mount point cannot, which only root could make here."""
    (tmp_path / "disk").mkdir()

    def busy(path, target):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    with (
        pytest.raises(InputError, match=r"busy\), as a mount point cannot; choose a folder inside it"),
        claim(tmp_path / "disk"),
    ):
        raise AssertionError


def test_names_may_be_as_long_as_the_disk_takes(tmp_path):
    output = tmp_path / ("x" * 255)
    for overwrite in (False, True):
        with claim(output):
            make(output, overwrite=overwrite)
    assert names(tmp_path) == [output.name]
    assert partial(output) != partial(output.with_name("x" * 254 + "y"))


def test_the_nearest_folder_is_what_exists_of_a_path(tmp_path):
    assert nearest_folder(tmp_path / "a" / "b" / "c") == tmp_path.resolve()
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert nearest_folder(tmp_path / "a" / "b" / "c") == (tmp_path / "a" / "b").resolve()
    assert nearest_folder(tmp_path / "a") == (tmp_path / "a").resolve()


def test_free_space_is_that_of_the_disk(tmp_path, monkeypatch):
    asked = []

    def disk_usage(path):
        asked.append(path)
        return shutil._ntuple_diskusage(100, 58, 42)

    monkeypatch.setattr("lesa_jax.base.folders.shutil.disk_usage", disk_usage)
    assert free_space(tmp_path / "not" / "yet") == 42
    assert asked == [tmp_path.resolve()]


def test_output_in_the_way(tmp_path):
    source, output = tmp_path / "model", tmp_path / "out"
    source.mkdir()
    check_output(output, source, False, 10)
    output.mkdir()
    check_output(output, source, False, 10)
    (output / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not empty"):
        check_output(output, source, False, 10)
    with pytest.raises(InputError, match="holds thesis.tex, which lesa_jax did not write"):
        check_output(output, source, True, 10)
    with pytest.raises(InputError, match="is a file"):
        check_output(output / "thesis.tex", source, True, 10)
    with pytest.raises(InputError, match="more than 255 bytes"):
        check_output(tmp_path / ("ü" * 128), source, True, 10)
    (output / "thesis.tex").unlink()
    for overlapping in (source, source / "inside", tmp_path):
        with pytest.raises(InputError, match="overlap"):
            check_output(overlapping, source, True, 10)
    with pytest.raises(InputError, match="free some space"):
        check_output(output, source, True, 1 << 60)


def test_output_where_nobody_may_write(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere, so ask in its place
    with pytest.raises(InputError, match="no permission to write"):
        check_output(tmp_path / "out", tmp_path / "model", False, 10)
