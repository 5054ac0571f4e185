"""What a comparison is made of, told apart by what it holds and in which shares."""

import pytest

from lesa_jax.base.digests import digest_bytes
from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.comparison.basis import find_basis
from lesa_jax.comparison.settings import CompareSettings
from tests.support.settings import nest
from tests.support.tiny import tiny


@pytest.fixture
def identity(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)

    def of(data: str):
        settings = nest(CompareSettings, train_data=data, train_tokens="1K")
        return find_basis(settings, b"", open_checkpoint(tiny("llama"))).digests()["data"]

    return of


def test_what_is_replayed_is_part_of_what_it_is(tmp_path):
    new, old = tmp_path / "new.txt", tmp_path / "old.txt"
    new.write_text("new")
    old.write_text("old")

    def made_of(**more):
        settings = nest(CompareSettings, train_data=str(new), train_tokens="1K", **more)
        basis = find_basis(settings, b"", open_checkpoint(tiny("llama")))
        return basis, basis.digests()

    alone, (basis, both) = made_of()[1], made_of(replay_data=str(old), replay="0.1")
    assert both == alone | {"replayed": [digest_bytes(b"old")]}
    old.write_text("older")
    with pytest.raises(InputError, match="old.txt: changed during the comparison"):
        basis.check_unchanged()
    assert made_of(replay_data=str(old), replay="0.1")[1]["replayed"] != both["replayed"]


def test_the_shares_of_a_mixture_are_part_of_what_it_is(identity):
    mixtures = ["a.txt:0.9,b.txt:0.1", "a.txt:0.1,b.txt:0.9", "a.txt:0.5,b.txt:0.5", "hf://org/x:0.9,b.txt:0.1"]
    found = [identity(data) for data in (*mixtures, "a.txt,b.txt", "a.txt", "hf://org/x")]
    assert all(one != other for number, one in enumerate(found) for other in found[:number])
    assert identity("a.txt:0.9, b.txt:0.1") == found[0]
    assert identity("a.txt,b.txt") == [*identity("a.txt"), *identity("b.txt")]  # as before there were shares
