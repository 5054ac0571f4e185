"""What a training run refuses, before anything is written."""

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.training.run import train
from tests.support.settings import train_settings

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
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(place, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        train(train_settings(place, "refused", **changes))
    assert "\n" not in str(caught.value)
    assert not (place / "refused").exists()


def test_new_needs_growth_json(place):
    with pytest.raises(InputError, match="no growth.json"):
        train(train_settings(place, "refused", model=str(place / "base")))
