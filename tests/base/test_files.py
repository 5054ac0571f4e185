"""Small files, read with one-line errors."""

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import read_json, read_text


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


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a": ' * 100_000, "{", "", "\0", "[]", "3", '{"a": 1}x'])
def test_a_damaged_json_file_is_said_in_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config.json: (cannot be read as JSON|expected a JSON object)") as raised:
        read_json(tmp_path / "config.json", "")
    assert "\n" not in str(raised.value)
