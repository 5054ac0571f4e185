"""Fitted laws against the laws that made the losses, and against scipy's own curve fit."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from lesa_jax.analysis.scaling_law import bootstrap, fit_law, held_out_errors, without_worst
from lesa_jax.base.errors import InputError

# ln c and a of width, depth and tokens, and the floor: those of the public table, roughly.
MADE = np.array([5.6, 1.9, 6.3, 0.95, 1.3, 0.3, 1.75])


def runs(noise=0.0, count=200, seed=0):
    """Sizes as in published sweeps, depth growing with width, and losses of the law."""
    rng = np.random.default_rng(seed)
    width = np.exp(rng.uniform(np.log(500), np.log(5000), count))
    depth = np.round(0.4 * width**0.6 * np.exp(rng.normal(0, 0.3, count))) + 2
    tokens = np.exp(rng.uniform(np.log(1e9), np.log(1e11), count))
    sizes = np.stack([width, depth, tokens])
    terms = np.exp(MADE[:3, None] - MADE[3:6, None] * np.log(sizes))
    return sizes, (terms.sum(axis=0) + MADE[6]) * np.exp(rng.normal(0, noise, count))


def test_a_law_without_noise_is_recovered_in_any_unit():
    sizes, losses = runs()
    law = fit_law(sizes, losses)
    np.testing.assert_allclose(law.parameters, MADE, rtol=1e-5)
    assert law.objective < 1e-16
    np.testing.assert_allclose(law.predict(sizes), losses, rtol=1e-8)
    units = np.array([[1.0], [100.0], [1e-6]])
    other = fit_law(sizes * units, losses)
    np.testing.assert_allclose(other.exponents, MADE[3:6], rtol=1e-5)
    np.testing.assert_allclose(other.log_prefactors, MADE[:3] + MADE[3:6] * np.log(units[:, 0]), rtol=1e-5)


def test_optimum_and_errors_are_those_of_scipys_curve_fit():
    sizes, losses = runs(noise=0.005)
    law = fit_law(sizes, losses)

    def log_loss(logs, m, d, t, a_m, a_d, a_t, floor):
        return np.log(np.exp(m - a_m * logs[0]) + np.exp(d - a_d * logs[1]) + np.exp(t - a_t * logs[2]) + floor)

    found, covariance = curve_fit(log_loss, np.log(sizes), np.log(losses), MADE, method="lm", xtol=1e-13, ftol=1e-13)
    np.testing.assert_allclose(law.parameters, found, rtol=1e-4)
    np.testing.assert_allclose(law.errors, np.sqrt(np.diag(covariance)), rtol=1e-2)
    assert (np.abs(law.parameters - MADE) < 4 * law.errors).all()
    # Where the runs are, depth's term is known well; at one layer, which its prefactor stands for, it is not.
    middle = np.exp(np.log(sizes).mean(axis=1, keepdims=True))
    assert law.predict_error(middle)[0] < 0.01
    assert law.errors[1] > 0.1


def test_errors_are_what_resampling_and_other_draws_say():
    sizes, losses = runs(noise=0.005)
    law = fit_law(sizes, losses)
    drawn = bootstrap(law, sizes, losses, resamples=60)
    np.testing.assert_allclose(drawn.std(axis=0), law.errors, rtol=0.5)
    assert (bootstrap(law, sizes, losses, resamples=2) == drawn[:2]).all()
    fitted, kept_out = held_out_errors(law, sizes, losses).mean(axis=0)
    expected = 0.005 * np.sqrt(2 / np.pi)  # a normal number's mean size
    assert fitted < kept_out
    assert (fitted, kept_out) == pytest.approx((expected, expected), rel=0.15)


def test_depth_alone():
    depths = np.repeat([2.0, 4, 8, 16, 32], 3)[None]
    losses = 0.8 / depths[0] + 2.5
    law = fit_law(depths, losses)
    np.testing.assert_allclose(law.parameters, [np.log(0.8), 1, 2.5], rtol=1e-6)
    flat = fit_law(depths, np.full(15, 3.0) + np.tile([0.0, 1e-3, -1e-3], 5))
    assert flat.errors[1] > 1  # nothing is known of the exponent of what is not there


def test_what_no_law_can_be_fitted_to_is_refused():
    depths = np.array([[2.0, 4, 8, 16]])
    losses = np.array([3.0, 2.5, 2.3, 2.2])
    with pytest.raises(InputError, match="needs more than 3 runs, not 3"):
        fit_law(depths[:, :3], losses[:3])
    with pytest.raises(InputError, match="positive and finite"):
        fit_law(depths, np.array([3.0, 2.5, np.nan, 2.2]))
    with pytest.raises(InputError, match="differ between runs"):
        fit_law(np.full((1, 4), 8.0), losses)


def test_the_worst_runs_are_left_out():
    losses = np.array([3.0, 5.0, 4.0, 2.0])
    assert without_worst(losses, 2).tolist() == [True, False, False, True]
    assert without_worst(losses, 0).all()
