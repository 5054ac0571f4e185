"""The picture of a run, whatever is known of it."""

import numpy as np
import pytest

from lesa_jax.tracking.curve import CURVE_SIZE, draw_curve, loss_limits, smooth, thin
from lesa_jax.tracking.log import CURVE
from tests.support.pictures import png_size


def rows_of(steps, **columns):
    return [{"step": step, **{key: column(step) for key, column in columns.items()}} for step in range(steps)]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        rows_of(1, tokens=lambda s: 0, loss=lambda s: 3.0, eval_loss=lambda s: 3.0, learning_rate=lambda s: 0.0),
        rows_of(3, tokens=lambda s: None, loss=lambda s: 0.0, learning_rate=lambda s: 1e-4),
        rows_of(50, tokens=lambda s: s * 10**8, loss=lambda s: None, eval_loss=lambda s: None),
        rows_of(50, tokens=lambda s: s * 10**8, loss=lambda s: None, eval_loss=lambda s: 9.0 if s % 20 == 0 else None),
        rows_of(9000, tokens=lambda s: s * 4096, loss=lambda s: 1e30 if s == 0 else 3.0 + s % 7, mfu=lambda s: 0.4),
    ],
    ids=["nothing", "one step", "no tokens", "no losses", "evaluations only", "long with an outlier"],
)
def test_every_run_has_a_curve(tmp_path, rows):
    draw_curve(rows, tmp_path / CURVE)
    assert png_size(tmp_path / CURVE) == CURVE_SIZE
    assert [path.name for path in tmp_path.iterdir()] == [CURVE]


def test_the_same_run_gives_the_same_curve_and_another_a_different_one(tmp_path):
    rows = rows_of(100, tokens=lambda s: s * 4096, loss=lambda s: 3.0 + 1 / (1 + s))
    contents = []
    for drawn in (rows, rows, rows[:60]):
        draw_curve(drawn, tmp_path / CURVE)
        contents.append((tmp_path / CURVE).read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_smoothing_keeps_a_straight_line_and_calms_noise():
    np.testing.assert_allclose(smooth(np.full(500, 3.0)), 3.0)
    line = np.linspace(5.0, 3.0, 500)
    np.testing.assert_allclose(smooth(line)[:490], line[:490])  # means are one-sided at the end
    noise = np.random.default_rng(0).standard_normal(2000)
    assert smooth(noise)[200:].std() < 0.3
    assert smooth(noise)[0] == pytest.approx(noise[0])
    assert len(smooth(np.zeros(0))) == 0


def test_the_loss_axis_ignores_the_first_steps_and_a_far_first_evaluation():
    train = np.concatenate([[900.0, 50.0, 10.0], np.linspace(4.0, 3.0, 997)])
    none = np.zeros(0)
    low, high = loss_limits(train, none)
    assert low < 3.05
    assert 3.99 < high < 4.2
    assert loss_limits(train, np.array([800.0, 3.5])) == (low, high)
    near = loss_limits(train, np.array([4.6, 3.5]))
    assert near[1] > 4.6
    for single in (loss_limits(np.array([3.0]), none), loss_limits(none, np.array([0.0]))):
        assert single[0] < single[1]


def test_long_runs_are_thinned():
    assert [len(range(n)[thin(n)]) for n in (0, 1, 4000, 4001, 10**6)] == [0, 1, 4000, 2001, 4000]
