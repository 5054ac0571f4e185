"""What more layers are worth by the law of depth."""

import numpy as np
import pytest

from lesa_jax.analysis.depth_worth import COVARIANCE, EXPONENT, LOG_PREFACTOR, worth


@pytest.mark.parametrize(("layers", "grown", "nats"), [(12, 18, 0.104), (24, 36, 0.041), (32, 48, 0.028)])
def test_it_is_what_the_published_fit_says_of_depths_that_were_run(layers, grown, nats):
    """The figures of experiments/results/chinchilla_depth.md; its errors are by resampling, 0.003 to 0.015."""
    found = worth(layers, grown)
    assert found is not None
    assert found[0] == pytest.approx(nats, abs=5e-4)
    assert 0.002 < found[1] < 0.016


def test_the_error_is_that_of_laws_drawn_from_the_fit():
    drawn = np.random.default_rng(0).multivariate_normal([LOG_PREFACTOR, EXPONENT], COVARIANCE, 200_000)
    part = [np.exp(drawn[:, 0] - drawn[:, 1] * np.log(layers)) for layers in (16, 24)]
    found = worth(16, 24)
    assert found is not None
    assert found[1] == pytest.approx(np.std(part[0] - part[1]), rel=0.15)


@pytest.mark.parametrize(("layers", "grown"), [(8, 12), (32, 64), (24, 24), (24, 16)])
def test_nothing_is_said_where_there_are_no_runs(layers, grown):
    assert worth(layers, grown) is None
