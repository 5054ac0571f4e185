"""The learning rate over a run."""

import numpy as np
import pytest

from lesa_jax.training.optimizer import Optimizer, learning_rate
from lesa_jax.training.settings import AdamW


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_schedules_warm_up_peak_and_end_at_zero(schedule):
    rate = learning_rate(Optimizer(AdamW(learning_rate=1.0, schedule=schedule, warmup=10), steps=100))
    values = np.array([float(rate(step)) for step in range(101)])
    assert 0 < values[0] < 0.2
    assert np.argmax(values) == 10
    assert values[10] == pytest.approx(1)
    assert np.all(np.diff(values[:11]) > 0)
    assert np.all(np.diff(values[10:]) <= 1e-7)
    assert values[99] > 0
    assert values[100] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("warmup", "steps", "expected"), [(None, 1000, 30), (None, 10, 0), (7, 10, 7)])
def test_the_warmup_is_three_percent_unless_it_is_given(warmup, steps, expected):
    assert Optimizer(AdamW(warmup=warmup), steps).warmup == expected
