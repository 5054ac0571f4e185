"""A trained model on its way to the hub: when the run is at its end, and again when that failed."""

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.folders import MANIFEST
from lesa_jax.training.settings import check_settings
from tests.support.hub_server import hub_server
from tests.support.settings import train_settings
from tests.support.training import OPTIONS, finish, start


def test_there_must_be_something_to_upload(place):
    with pytest.raises(InputError, match="--push-to-hub: uploads final/, which --export none does not write"):
        check_settings(train_settings(place, "run", push_to_hub="lab/trained", export="none"))


@pytest.mark.slow
def test_what_could_not_be_uploaded_is_when_the_same_command_is_given_again(place, tmp_path):
    run = tmp_path / "run"
    options = ["--model", str(place / "grown"), "--data", str(place / "data.jsonl"), "--output", str(run), *OPTIONS]
    options += ["--tracker", "jsonl", "--push-to-hub", "lab/trained"]
    with hub_server() as hub:
        environment = hub.environment(str(tmp_path / "home")) | {"HF_HUB_OFFLINE": "0"}
        hub.failing = "/preupload/"
        said = finish(start(*options, **environment), expected=2)
        assert f"but {run / 'final'} is complete; upload it with `hf upload lab/trained {run / 'final'}`" in said
        lines = (run / "metrics.jsonl").read_text()
        hub.failing = None
        finish(start(*options, **environment))
        assert (run / "metrics.jsonl").read_text() == lines
        assert not (run / "tensorboard").exists()
        assert hub.models["lab/trained"] == {
            path.name: path.read_bytes() for path in (run / "final").iterdir() if path.name != MANIFEST
        }
