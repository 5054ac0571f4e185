"""What a result depends on, as a digest."""

import hashlib

import pytest

from lesa_jax.base.digests import digest, digest_file, digest_files
from lesa_jax.base.errors import InputError


def test_files_are_hashed_as_the_hub_does(tmp_path):
    for name, data in (("a", b""), ("b", b"x" * 3_000_001)):
        (tmp_path / name).write_bytes(data)
    seen = []
    assert digest_file(tmp_path / "b", seen.append) == hashlib.sha256(b"x" * 3_000_001).hexdigest()
    assert sum(seen) == 3_000_001
    assert digest_files([tmp_path / "a", tmp_path / "b"]) == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a", "b")
    }


def test_a_file_that_changes_meanwhile_has_no_digest(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"x" * 3_000_000)

    def change(nbytes):
        with file.open("r+b") as stream:
            stream.write(b"y")

    with pytest.raises(InputError, match="changed while it was read"):
        digest_file(file, change)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone: cannot be read \(No such file"):
        digest_file(tmp_path / "gone")


def test_order_of_keys_does_not_count_and_everything_else_does():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert len({digest(value) for value in ({"a": 1}, {"a": "1"}, {"a": [1]}, {"b": 1})}) == 4
