"""Calibration: factors that lower the loss, written into the weights, and never worse than the original."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint, read
from lesa_jax.demo import MODEL_DIRECTORY
from lesa_jax.evaluation.sample import sample_rows
from lesa_jax.growth.calibrate import search
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.models.decoder import forward, head
from lesa_jax.models.load import load_model
from lesa_jax.models.losses import token_nll
from lesa_jax.planning.record import read_growth

TEXT = "def area(width, height):\n    return width * height\n\n\nclass Shape:\n    pass\n" * 60


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "calibration.txt"
    path.write_text(TEXT)
    return path


def loss(folder):
    """Of the checkpoint as it was written, on the rows that calibration saw."""
    params, config = load_model(folder)
    rows = jnp.asarray(sample_rows(folder, TEXT, config))
    with jax.default_matmul_precision("highest"):
        hidden = forward(params, rows, config)
        return float(token_nll(hidden[:, :-1], head(params, config), rows[:, 1:]).mean())


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("grown")
    report = expand(
        ExpandSettings(str(MODEL_DIRECTORY), folder / "out", method="duplicate", gaps="3,9,12", calibrate=text)
    )
    plain = ExpandSettings(str(MODEL_DIRECTORY), folder / "plain", method="duplicate", gaps="3,9,12")
    expand(plain)
    return folder, report


@pytest.mark.slow
def test_the_loss_falls_below_the_originals(calibrated):
    folder, report = calibrated
    assert len(report.scales) == 3
    assert report.losses["calibrated"] < report.losses["base"] < report.losses["grown"]
    assert loss(folder / "out") == pytest.approx(report.losses["calibrated"], rel=1e-3)  # rounded to bfloat16
    assert loss(folder / "plain") == pytest.approx(report.losses["grown"], rel=1e-5)
    assert loss(MODEL_DIRECTORY) == pytest.approx(report.losses["base"], rel=1e-5)


@pytest.mark.slow
def test_only_new_layers_outputs_are_scaled(calibrated):
    folder, report = calibrated
    plain, scaled = open_checkpoint(folder / "plain"), open_checkpoint(folder / "out")
    factor = dict(zip(report.plan.new_layers, report.scales, strict=True))
    for name in plain.entries:
        before, after = read(plain, name).astype(np.float64), read(scaled, name).astype(np.float64)
        layer = int(name.split(".")[2]) if name.startswith("model.layers.") else -1
        if layer in factor and ("o_proj" in name or "down_proj" in name):
            np.testing.assert_allclose(after, factor[layer] * before, rtol=1e-2, atol=1e-6)
        else:
            np.testing.assert_array_equal(after, before)


@pytest.mark.slow
def test_growth_json_keeps_the_factors_and_no_path(calibrated, text):
    folder, report = calibrated
    growth = read_growth(folder / "out", report.plan.layers)
    assert growth.measurements["calibration"]["scales"] == list(report.scales)
    assert growth.settings["calibrate"] is True
    assert str(text) not in (folder / "out" / "growth.json").read_text()


def test_search_finds_a_minimum_and_starts_at_the_original():
    target = np.array([0.3, -0.2, 1.4])
    scales, losses = search(lambda a: (float(np.sum((a - target) ** 2)), 2 * (a - target)), 3)
    np.testing.assert_allclose(scales, target, atol=1e-4)
    assert losses["base"] == pytest.approx(np.sum(target**2))
    assert losses["grown"] == pytest.approx(np.sum((1 - target) ** 2))


def test_search_keeps_the_original_where_everything_else_is_worse():
    scales, losses = search(lambda a: (float(np.sum(np.abs(a))), np.ones_like(a)), 2)  # a gradient that lies
    np.testing.assert_array_equal(scales, 0)
    assert losses["calibrated"] == losses["base"] == 0


def test_search_ignores_losses_that_are_not_finite():
    scales, losses = search(lambda a: (float(np.sum((a - 9) ** 2)) if np.all(a < 5) else np.nan, 2 * (a - 9)), 1)
    assert np.isfinite(losses["calibrated"])
    assert losses["calibrated"] <= losses["base"]
    assert scales[0] < 5


def test_damaged_originals_and_short_texts_are_refused(tmp_path):
    with pytest.raises(InputError, match="not a number"):
        search(lambda a: (float("nan"), np.zeros_like(a)), 2)
    (tmp_path / "short.txt").write_text("x")
    with pytest.raises(InputError, match="fewer than two tokens"):
        expand(
            ExpandSettings(str(MODEL_DIRECTORY), tmp_path / "out", method="duplicate", calibrate=tmp_path / "short.txt")
        )
    assert [path.name for path in tmp_path.iterdir()] == ["short.txt"]
