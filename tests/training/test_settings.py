"""Options that cannot mean anything are refused, whatever number a shell can write."""

import math

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.training.settings import TrainSettings, check_settings
from tests.support.settings import nest

GOOD = {"model": "grown", "data": "data.txt", "steps": 10}
ENDLESS = 10**30


@pytest.mark.parametrize(
    "good",
    [
        {}, {"seed": 2**32 - 1}, {"weight_decay": 0.0, "betas": (0.0, 0.9999999)}, {"learning_rate": 1e30},
        {"steps": None, "tokens": "3M"}, {"train": "layers.3"},
    ],
)  # fmt: skip
def test_what_means_something_is_taken(good):
    check_settings(nest(TrainSettings, **(GOOD | good)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("learning_rate", value) for value in (0.0, -1e-3, math.nan, math.inf, 1e300, 1e-300)],
        *[("clip", value) for value in (0.0, -1.0, math.nan, math.inf, 1e300, 1e-300)],
        *[("weight_decay", value) for value in (-0.1, math.nan, math.inf, 1e300)],
        *[("betas", value) for value in ((1.0, 0.9), (0.9, -0.1), (math.nan, 0.9), (0.9, math.inf), (0.9, 1 - 1e-9))],
        *[("seed", value) for value in (-1, 2**32, ENDLESS)],
        *[(name, value) for name in ("steps", "batch_size", "save_every", "keep", "eval_every", "accumulate")
          for value in (0, -1, 2**31, ENDLESS)],
        *[(name, value) for name in ("warmup", "mask_steps") for value in (-1, ENDLESS)],
        ("train", ""), ("train", " "),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"^--{name.replace('_', '-')} ") as caught:
        check_settings(nest(TrainSettings, **(GOOD | {name: value})))
    assert "\n" not in str(caught.value)
