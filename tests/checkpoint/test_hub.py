"""Model names: folders, hub ids in the cache, and nothing else."""

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.hub import resolve_model
from tests.support.tiny import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A cache with one model, laid out as the hub's client does it; conftest has switched the network off."""
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(tiny("llama").iterdir()):
        (repository / "blobs" / f"b{number}").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/b{number}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return snapshot


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_cached_model_is_found_offline(hub_cache, revision):
    assert resolve_model("org/name", revision) == hub_cache


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("org/other", None, "not in its cache"),
        ("org/name", "v2", "not in its cache"),
        ("./name", None, "no such folder"),
        ("a/b/c", None, "no such folder"),
        ("org/na me", None, "not a hub id"),
    ],
)
def test_what_is_nowhere_is_said_in_one_line(hub_cache, model, revision, message):
    with pytest.raises(InputError, match=message) as caught:
        resolve_model(model, revision)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["", " ", "\t"])
def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tiny("llama"))
    assert resolve_model(".").samefile(tiny("llama"))
    with pytest.raises(InputError, match="--model is empty"):
        resolve_model(model)
    with pytest.raises(InputError, match="--revision is empty"):
        resolve_model("org/name", model)


def test_what_is_here_and_no_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for model, message in (
        ("file", "--model file: is a file; give the folder"),
        (f"{tmp_path}/file", "is a file"),
        ("link", "--model link: links to gone, which is not there"),
        ("loop", "links to loop, which is not there"),
        ("~", "is your home folder"),
        ("~/", "is your home folder"),
        ("~/none", "no such folder"),
        ("~nobody-has-this-name/model", "no such folder"),
        ("n" * 300, "not a hub id"),
        ("/" + "n" * 300, "no such folder"),
        ("a\0b", "not a hub id"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            resolve_model(model)
        assert "\n" not in str(raised.value)
    (tmp_path / "model").mkdir()
    assert resolve_model("~/model") == tmp_path / "model"
