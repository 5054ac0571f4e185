"""Folders are whole or not there."""

import shutil

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import free_space, nearest_folder, publish, read_text


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


def test_a_text_is_read_without_its_byte_order_mark_and_with_unix_line_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\rthree\n\ufeff".encode())
    assert read_text("--text", tmp_path / "a.txt") == "one\ntwo\nthree\n\ufeff"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no text"),
        ("\ufeff \r\n".encode(), "holds no text"),
        (b"a\xff", "cannot be read as UTF-8"),
        ("ab".encode("utf-16"), "cannot be read as UTF-8"),
        ("ab".encode("utf-16-le"), "holds NUL bytes; expected a text file"),
        (b"a\0b", "holds NUL bytes"),
    ],
)
def test_what_is_no_text_is_said_in_one_line(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=f"--text .*a.txt: {message}") as raised:
        read_text("--text", tmp_path / "a.txt")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [".", "none.txt", "n" * 300, "a\0b"])
def test_what_is_no_file_is_said_in_one_line(tmp_path, name):
    with pytest.raises(InputError, match="--text .*: cannot be read as UTF-8 text"):
        read_text("--text", tmp_path / name)
