"""What a training run refuses, before anything is written."""

import json
import shutil

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.training.job import make_train_job
from lesa_jax.training.parameters import choose
from lesa_jax.training.run import train
from tests.support.settings import train_settings
from tests.support.tiny import tiny

REFUSED = [
    ({"model": None}, "--model: name the checkpoint"),
    ({"data": None}, "--data: name the text"),
    ({"steps": None}, "--tokens or --steps"),
    ({"tokens": "3M"}, "--tokens or --steps"),
    ({"steps": None, "tokens": "many"}, "expected a whole number"),
    ({"batch_size": 0}, "--batch-size 0: must be positive"),
    ({"accumulate": 3}, "--accumulate 3: does not divide"),
    ({"sequence_length": 4096}, "expected 2 to 128"),
    ({"mesh": "data=2"}, "does not divide the 1 devices"),
    ({"mesh": "rows=1"}, "is not AXIS=SIZE"),
    ({"train": "layers.77"}, "matches no tensor"),
    ({"resume": True}, "holds no run to go on with"),
    ({"data": "nothing.jsonl"}, "nothing.jsonl"),
    ({"init": "random"}, "takes --config"),
    ({"init": "norm-scaling"}, "--init norm-scaling: takes --config"),
    ({"train": ""}, "names nothing"),
    ({"train": "a{99999999999}"}, "not a regular expression"),
    ({"steps": None, "tokens": ""}, "expected a whole number"),
    ({"steps": None, "tokens": "255"}, "--tokens 255: less than a step, which takes 256"),
    ({"steps": None, "tokens": "1e23"}, "expected a whole number"),
    ({"steps": None, "tokens": "1" + "0" * 23}, "expected a whole number"),
    ({"steps": None, "tokens": "1e15"}, "steps; at most 2147483647"),
    ({"steps": None, "tokens": "9" * 400}, "expected a whole number"),
    ({"steps": 2**31}, "--steps 2147483648: at most"),
    ({"warmup": 7}, "--warmup 7: must end within the run's 6 steps"),
    ({"mask_steps": 7}, "--mask-steps 7: must end within the run's 6 steps"),
    ({"batch_size": 2**30}, "tokens a step; at most"),
    ({"seed": 2**32}, "--seed 4294967296: expected 0 to 4294967295"),
    ({"seed": -1}, "--seed -1: expected 0 to"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(place, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        train(train_settings(place, "refused", **changes))
    assert "\n" not in str(caught.value)
    assert not (place / "refused").exists()


@pytest.mark.parametrize("changes", [{}, {"train": "all", "new_rate": 16.0}])
def test_new_needs_growth_json(place, changes):
    with pytest.raises(InputError, match="no growth.json"):
        train(train_settings(place, "refused", model=str(place / "base"), **changes))


def test_the_rate_of_new_layers_is_that_of_exactly_what_is_new(place):
    job = make_train_job(train_settings(place, "rates", train="all", new_rate=16.0))
    leaves = {leaf.path: leaf for leaf in job.leaves}
    faster = {leaves[path].names[row] for path, rows in job.optimizer.rule.new for row in rows}
    assert job.growth is not None
    assert faster == choose("new", job.config, job.growth.plan)
    assert make_train_job(train_settings(place, "rates", train="all")).optimizer.rule.new == ()


def test_a_growth_json_of_another_model_is_refused(place):
    shutil.copytree(place / "grown", place / "mixed")
    record = json.loads((place / "mixed" / "growth.json").read_text())
    record["plan"]["slots"].append({"layer": 3, "new": True})
    (place / "mixed" / "growth.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="growth.json") as caught:
        train(train_settings(place, "refused", model=str(place / "mixed")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["olmo", "olmo2", "t5"])
def test_norms_that_are_not_there_are_not_scaled(place, name):
    """Norms without weights, behind what a layer adds, and of an encoder-decoder."""
    changes = {"model": None, "init": "norm-scaling", "config": tiny(name) / "config.json"}
    with pytest.raises(InputError, match=f"--init norm-scaling: .* which a {name} is not; use --init random"):
        train(train_settings(place, "refused", **changes))
    assert not (place / "refused").exists()
