"""The transport plan against float64, and what it makes of permuted layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.initializers.transport import REGULARISATION, row_distances, sinkhorn, transport, transport_published
from tests.support.transport import distances, reference_plan, reference_sinkhorn

KEY = jax.random.key(0)
BOTH = pytest.mark.parametrize("initialiser", [transport, transport_published])


def rows(n: int = 40, fan_in: int = 32, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal((n, fan_in), np.float32)


def reference_moved(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    return reference_plan(below, above).T @ below


@pytest.mark.parametrize(("scale", "reg"), [(0.02, 0.06), (0.1, 0.06), (0.2, 0.06), (1.0, 0.5)])
def test_plan_agrees_with_float64(scale, reg):
    cost = distances(rows(scale=scale), rows(scale=scale, seed=1))
    plan = sinkhorn(jnp.asarray(cost, jnp.float32), reg, max_iterations=20000)
    expected = reference_sinkhorn(cost, reg)
    assert plan.dtype == jnp.float32
    np.testing.assert_allclose(plan, expected, rtol=2e-3, atol=1e-6 * expected.max())


@pytest.mark.parametrize("n", [1, 7, 600])
def test_marginals_are_uniform(n):
    plan = np.asarray(
        sinkhorn(jnp.asarray(distances(rows(n, 4, 0.2), rows(n, 4, 0.3, seed=1)), jnp.float32), 0.06), np.float64
    )
    np.testing.assert_allclose(plan.sum(0) * n, 1, rtol=2e-5)
    np.testing.assert_allclose(plan.sum(1) * n, 1, rtol=2e-5)
    assert np.all(plan >= 0)


def test_no_entropy_is_too_dear_in_float64():
    cost = distances(rows(scale=0.2), rows(scale=0.2, seed=1))
    with jax.enable_x64(True):
        plan = sinkhorn(jnp.asarray(cost), 0.06, tolerance=1e-12, max_iterations=20000)
        assert plan.dtype == jnp.float64
    np.testing.assert_allclose(plan, reference_sinkhorn(cost, 0.06), rtol=1e-9)


def test_equal_costs_spread_all_mass_evenly():
    np.testing.assert_allclose(sinkhorn(jnp.full((8, 8), 3.0), 0.06), np.full((8, 8), 1 / 64), rtol=1e-6)


def test_iterations_end_where_they_are_told_to():
    cost = jnp.asarray(distances(rows(), rows(seed=1)), jnp.float32)
    few, many = (np.asarray(sinkhorn(cost, 0.2, max_iterations=limit)) for limit in (1, 20000))
    row_errors = [np.max(np.abs(40 * plan.sum(1) - 1)) for plan in (few, many)]
    assert row_errors[0] > 0.1
    assert row_errors[1] < 2e-5
    np.testing.assert_allclose(40 * few.sum(0), 1, rtol=1e-5)  # columns are right at any time


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e15])
def test_large_distances_give_a_finite_plan(scale):
    cost = row_distances(jnp.asarray(rows(scale=scale)), jnp.asarray(rows(scale=scale, seed=1)))
    assert np.max(cost) / REGULARISATION > 1e3  # exp(-1000) is 0
    plan = np.asarray(sinkhorn(cost, REGULARISATION), np.float64)
    assert np.all(np.isfinite(plan))
    np.testing.assert_allclose(40 * plan.sum(0), 1, rtol=1e-5)
    assert np.all(np.isfinite(transport(np.stack([rows(scale=scale), rows(scale=scale, seed=1)]), (0,), KEY)))


def test_distances():
    a, b = rows(30), rows(50, seed=1)
    np.testing.assert_allclose(row_distances(jnp.asarray(a), jnp.asarray(b)), distances(a, b), rtol=1e-5)
    same = np.asarray(row_distances(jnp.asarray(a), jnp.asarray(a)))
    assert np.all(np.isfinite(same))
    assert np.max(np.diagonal(same)) < 1e-3 * np.linalg.norm(a, axis=1).max()


@pytest.mark.parametrize("scale", [0.2, 1.0, 100.0])
def test_permuted_rows_are_found_again(scale):
    below = rows(scale=scale)
    above = below[np.random.default_rng(2).permutation(40)]
    w = np.stack([below, above])
    np.testing.assert_allclose(transport(w, (0,), KEY)[0], above, rtol=1e-3, atol=1e-3 * scale)
    assert np.linalg.norm((below + above) / 2 - above) > 0.5 * np.linalg.norm(above)  # an average does not find them


def relabelled(scale: float = 1.0) -> dict[str, np.ndarray]:
    """A layer, and the same with its neurons in another order: what attention writes, and what reads it."""
    rng = np.random.default_rng(3)
    written, inside = rng.permutation(40), rng.permutation(48)
    attention, gate = rows(40, 32, scale), rows(48, 40, scale, seed=1)
    bias, norm = rng.standard_normal(48).astype(np.float32), rng.standard_normal(40).astype(np.float32)
    return {
        "attention": np.stack([attention, attention[written]]),
        "gate": np.stack([gate, gate[inside][:, written]]),
        "bias": np.stack([bias, bias[inside]]),
        "norm": np.stack([norm, norm[written]]),
    }


def test_columns_move_with_the_rows_that_they_read():
    layer = relabelled()
    new = transport(layer["gate"], (0,), KEY, columns=layer["attention"])
    np.testing.assert_allclose(new[0], layer["gate"][1], rtol=1e-3, atol=1e-3)
    alone = np.asarray(transport(layer["gate"], (0,), KEY)[0])  # rows in another order of columns are not found again
    assert np.linalg.norm(alone - layer["gate"][1]) > 0.5 * np.linalg.norm(layer["gate"][1])


def test_a_bias_moves_with_the_rows_of_its_weight():
    layer = relabelled()
    new = transport(layer["bias"], (0,), KEY, rows=layer["gate"], columns=layer["attention"])
    np.testing.assert_allclose(new[0], layer["bias"][1], rtol=1e-3, atol=1e-3)


def test_half_of_a_norm_moves_with_what_it_reads():
    """Published: about three quarters of the norms' mean, for T has mass 1."""
    layer = relabelled()
    below, above = layer["norm"]
    new = transport(layer["norm"], (0,), KEY, columns=layer["attention"])
    np.testing.assert_allclose(new[0], (0.5 * above + 0.5 * below + above) / 2, rtol=1e-3, atol=1e-3)
    published = transport_published(layer["norm"], (0,), KEY, columns=layer["attention"])
    np.testing.assert_allclose(published[0], (0.5 * above / 40 + 0.5 * below + above) / 2, rtol=1e-3, atol=1e-3)


def test_several_new_layers_in_a_gap_move_from_the_aligned_one_to_the_upper_one():
    below, above = rows(scale=0.1), rows(scale=0.1, seed=1)
    moved = reference_moved(below, above)
    w = np.stack([above, below, above])
    for initialiser, aligned in ((transport, 40 * moved), (transport_published, moved)):
        expected = [(1 - t) * aligned + t * above for t in (0.25, 0.5, 0.75)]
        np.testing.assert_allclose(initialiser(w, (1, 1, 1), KEY), expected, rtol=1e-3, atol=1e-5)


def test_published_layer_is_half_of_the_upper_neighbour():
    below, above = rows(400, scale=0.1), rows(400, scale=0.1, seed=1)
    w = np.stack([below, above])
    published, divided = (np.asarray(f(w, (0,), KEY)[0]) for f in (transport_published, transport))
    assert np.linalg.norm(published - above / 2) < 0.01 * np.linalg.norm(above / 2)
    assert np.linalg.norm(divided - above / 2) > 0.2 * np.linalg.norm(above / 2)
    np.testing.assert_allclose(published - above / 2, (divided - above / 2) / 400, atol=1e-6)


def test_aligned_rows_are_convex_combinations():
    """With t = 1/2 each entry of 2 W_new - W_{l+1} lies within its column of W_l, also when Sinkhorn is not done."""
    below, above = rows(scale=3.0), rows(scale=3.0, seed=1)
    aligned = 2 * np.asarray(transport(np.stack([below, above]), (0,), KEY)[0]) - above
    slack = 1e-4
    assert np.all(aligned <= below.max(0) + slack)
    assert np.all(aligned >= below.min(0) - slack)


def test_above_the_last_layer_it_is_matched_with_itself():
    w = np.stack([rows(seed=1), rows()])
    np.testing.assert_allclose(transport(w, (1,), KEY)[0], w[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(transport_published(w, (1,), KEY)[0], w[1] * (1 / 2 + 1 / 80), rtol=1e-4, atol=1e-4)


@BOTH
def test_gaps_come_in_order_and_do_not_depend_on_their_company(initialiser):
    w = np.stack([rows(scale=0.2, seed=seed) for seed in range(4)])
    together = initialiser(w, (0, 2), KEY)
    for gap, new in zip((0, 2), together, strict=True):
        np.testing.assert_allclose(new, initialiser(w[gap : gap + 2], (0,), KEY)[0], rtol=1e-5, atol=1e-6)


@BOTH
def test_key_does_not_matter_and_half_precision_does_not_round(initialiser):
    w = np.stack([rows(scale=0.2, seed=seed) for seed in range(3)]).astype(jnp.bfloat16)
    new = initialiser(jnp.asarray(w), (0, 1), KEY)
    assert new.dtype == jnp.float32
    expected = initialiser(w.astype(np.float32), (0, 1), jax.random.key(1))
    np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-6)


@BOTH
def test_impossible_gap(initialiser):
    with pytest.raises(InputError, match="gaps go from 0 to 1"):
        initialiser(np.stack([rows(), rows()]), (2,), KEY)
