"""Uploads, with huggingface_hub's own client, to a hub on this machine."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lesa_jax.base.folders import MANIFEST
from tests.support.hub_server import READ_TOKEN, TOKEN, Hub, hub_server
from tests.support.tiny import tiny

CHECK = "import sys; from lesa_jax.checkpoint.publishing import check_push; check_push(sys.argv[1])"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_server() as server:
        yield server


def call(
    hub: Hub, tmp_path: Path, *command: str, token: str | None = TOKEN, **more: str
) -> subprocess.CompletedProcess:
    """Python in a process of its own, for the client reads its environment when it is imported."""
    environment = hub.environment(str(tmp_path / "home"), token) | more
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def expand(hub: Hub, tmp_path: Path, name: str, *more: str, **call_options) -> subprocess.CompletedProcess:
    options = ["--model", str(tiny("llama")), "--output", str(tmp_path / "grown"), "--method", "duplicate"]
    return call(hub, tmp_path, "-m", "lesa_jax.expand", *options, "--push-to-hub", name, *more, **call_options)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def test_a_grown_model_and_what_is_left_of_it_are_uploaded(hub, tmp_path):
    done = expand(hub, tmp_path, "lab/deeper")
    assert done.returncode == 0, done.stderr
    assert f"pushed to {hub.address}/lab/deeper" in done.stderr
    assert hub.models == {"lab/deeper": files(tmp_path / "grown")}
    options = ["--model", str(tmp_path / "grown"), "--output", str(tmp_path / "again"), "--push-to-hub", "Ann/again"]
    done = call(hub, tmp_path, "-m", "lesa_jax.ungrow", *options)
    assert done.returncode == 0, done.stderr
    assert hub.models["Ann/again"] == files(tmp_path / "again")
    assert hub.models["Ann/again"]["model.safetensors"] == (tiny("llama") / "model.safetensors").read_bytes()


def test_a_widened_model_is_uploaded(hub, tmp_path):
    options = ["--model", str(tiny("llama")), "--output", str(tmp_path / "wide"), "--push-to-hub", "lab/wider"]
    done = call(hub, tmp_path, "-m", "lesa_jax.widen", *options)
    assert done.returncode == 0, done.stderr
    assert hub.models == {"lab/wider": files(tmp_path / "wide")}


def test_nothing_is_asked_of_the_hub_without_the_option_or_in_a_dry_run(hub, tmp_path):
    assert expand(hub, tmp_path, "lab/deeper", "--dry-run").returncode == 0
    options = ["--model", str(tiny("llama")), "--output", str(tmp_path / "grown"), "--method", "duplicate"]
    assert call(hub, tmp_path, "-m", "lesa_jax.expand", *options).returncode == 0
    assert hub.requests == []


@pytest.mark.parametrize("failing", ["/api/repos/create", "/preupload/", "/commit/"])
def test_an_upload_that_fails_leaves_the_model_and_says_how_to_go_on(hub, tmp_path, failing):
    hub.failing = failing
    done = expand(hub, tmp_path, "lab/deeper")
    [line] = done.stderr.strip().splitlines()[-1:]
    grown = tmp_path / "grown"
    assert done.returncode == 2
    assert line.startswith("error: --push-to-hub lab/deeper: the upload failed (")
    assert line.endswith(f"), but {grown} is complete; upload it with `hf upload lab/deeper {grown}`")
    assert (grown / MANIFEST).exists()
    assert not any(hub.models.values())


@pytest.mark.parametrize(
    ("name", "token", "message"),
    [
        ("deeper", TOKEN, "does not say whose it is; give ORG/NAME, where ORG may be your user name"),
        ("a/b/c", TOKEN, "is no name of a model on the hub; give ORG/NAME"),
        ("lab/my model", TOKEN, "is no name of a model on the hub; give ORG/NAME"),
        ("lab/deeper", None, "nobody is signed in to the hub; run `hf auth login` with a token that may write"),
        ("lab/deeper", "hf_x", "the hub does not know the token; run `hf auth login` with a token that may write, or "
                               "correct HF_TOKEN"),
        ("lab/deeper", READ_TOKEN, "the token may only read; run `hf auth login` with a token that may write"),
        ("other/deeper", TOKEN, "ann is not of other; choose of ann, lab"),
    ],
)  # fmt: skip
def test_what_will_fail_is_known_before_any_work(hub, tmp_path, name, token, message):
    done = call(hub, tmp_path, "-c", CHECK, name, token=token)
    assert done.stderr.strip().splitlines()[-1].endswith(f"InputError: --push-to-hub {name}: {message}")
    assert set(hub.requests) <= {"GET /api/whoami-v2"}


def test_a_hub_that_does_not_answer(hub, tmp_path):
    for more, message in (
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set; unset it, or leave out --push-to-hub"),
        ({"HF_ENDPOINT": "http://127.0.0.1:1"}, "; go online, or leave out --push-to-hub"),
    ):
        done = call(hub, tmp_path, "-c", CHECK, "lab/deeper", **more)
        assert done.stderr.strip().splitlines()[-1].endswith(message), done.stderr
    hub.failing = "whoami"
    done = call(hub, tmp_path, "-c", CHECK, "lab/deeper")
    last = done.stderr.strip().splitlines()[-1]
    assert "InputError: --push-to-hub lab/deeper: the hub refuses to say who is signed in (" in last


def test_it_is_checked_before_anything_is_written(hub, tmp_path):
    done = expand(hub, tmp_path, "other/deeper")
    assert (done.returncode, done.stderr) == (
        2,
        "error: --push-to-hub other/deeper: ann is not of other; choose of ann, lab\n",
    )
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []
