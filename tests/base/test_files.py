"""Folders are whole or not there."""

import shutil

import pytest

from lesa_jax.base.files import free_space, nearest_folder, publish


def test_a_folder_replaces_an_earlier_one(tmp_path):
    for text in ("first", "second"):
        with publish(tmp_path / "out") as folder:
            (folder / "file").write_text(text)
    assert (tmp_path / "out" / "file").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_where_the_first_one_wins_the_second_vanishes(tmp_path):
    with publish(tmp_path / "out", replace=False) as mine:
        (mine / "file").write_text("mine")
        with publish(tmp_path / "out", replace=False) as other:
            (other / "file").write_text("other's")
    assert (tmp_path / "out" / "file").read_text() == "other's"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_in_the_way_is_an_error_and_stays(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OSError, match="out"), publish(tmp_path / "out", replace=False) as folder:
        (folder / "file").write_text("x")
    assert (tmp_path / "out").read_text() == "a file"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("replace", [True, False])
def test_a_block_that_fails_leaves_nothing(tmp_path, replace):
    with pytest.raises(RuntimeError), publish(tmp_path / "out", replace):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


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

    monkeypatch.setattr("lesa_jax.base.files.shutil.disk_usage", disk_usage)
    assert free_space(tmp_path / "not" / "yet") == 42
    assert asked == [tmp_path.resolve()]
