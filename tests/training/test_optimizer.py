"""The update rules, each against a reference of its own, and the learning rate over a run."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from lesa_jax.parallel.mesh import make_mesh
from lesa_jax.training.optimizer import Optimizer, learning_rate, make_transformation, rates, scale
from lesa_jax.training.settings import OptimizerSettings
from lesa_jax.training.state import first_state, state_shardings
from lesa_jax.training.step import compile_step
from tests.support.packed import packed
from tests.support.trees import MESH, PLANS, pieces


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_schedules_warm_up_peak_and_end_at_zero(schedule):
    rate = learning_rate(Optimizer(OptimizerSettings(learning_rate=1.0, schedule=schedule, warmup=10), steps=100))
    values = np.array([float(np.asarray(rate(step))) for step in range(101)])
    assert 0 < values[0] < 0.2
    assert np.argmax(values) == 10
    assert values[10] == pytest.approx(1)
    assert np.all(np.diff(values[:11]) > 0)
    assert np.all(np.diff(values[10:]) <= 1e-7)
    assert values[99] > 0
    assert values[100] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("warmup", "steps", "expected"), [(None, 1000, 30), (None, 10, 0), (7, 10, 7)])
def test_the_warmup_is_three_percent_unless_it_is_given(warmup, steps, expected):
    assert Optimizer(OptimizerSettings(warmup=warmup), steps).warmup == expected


def test_rates_are_the_schedule_and_the_same_bits_wherever_a_run_begins():
    optimizer = Optimizer(OptimizerSettings(schedule="cosine"), steps=3000)
    whole = list(itertools.islice(rates(optimizer, 0), 3000))
    schedule = learning_rate(optimizer)
    np.testing.assert_allclose(whole, np.array([schedule(step) for step in range(3000)]), rtol=1e-6, atol=1e-10)
    for first in (1, 1023, 1024, 2500):
        assert list(itertools.islice(rates(optimizer, first), 3000 - first)) == whole[first:]


SHAPES = {
    ("segments", "0", "0", "self_attn", "q_proj", "weight"): (3, 6, 4),
    ("segments", "0", "0", "self_attn", "q_norm", "weight"): (3, 2, 2),
    ("segments", "0", "0", "mlp", "down_proj", "weight"): (3, 4, 9),
    ("segments", "0", "0", "mlp", "down_proj", "bias"): (3, 4),
    ("lm_head", "weight"): (7, 4),
}


@pytest.mark.parametrize(
    ("name", "by_muon"),
    [
        ("adamw", []),
        pytest.param("muon-outputs", ["down_proj"], marks=pytest.mark.slow),
        pytest.param("muon", ["down_proj", "q_proj"], marks=pytest.mark.slow),
    ],
)
def test_fifty_steps_are_those_of_a_reference_in_float64(name, by_muon):
    rng = np.random.default_rng(0)
    new = ((next(iter(SHAPES)), (1,)),)
    rule = Optimizer(OptimizerSettings(optimizer=name, output_rate=2.0, new_rate=5.0, clip=0.5), 50, new).rule
    start = {path: rng.standard_normal(shape, np.float32) for path, shape in SHAPES.items()}
    params = unflatten_dict(start)
    state = make_transformation(rule).init(params)
    reference = {path: (x.astype(float), 0.0, 0.0) for path, x in start.items()}
    for step in range(50):
        rate = jnp.float32(1e-2 / (1 + step))
        gradient = {path: rng.standard_normal(shape, np.float32) for path, shape in SHAPES.items()}
        updates, state = make_transformation(rule).update(unflatten_dict(gradient), state, params)
        params = optax.apply_updates(params, scale(updates, rate, rule))
        norm = np.sqrt(sum(np.sum(g.astype(float) ** 2) for g in gradient.values()))
        for path, (x, m, v) in reference.items():
            g = gradient[path] * min(1, 0.5 / norm)
            decay = 0.1 if path[-1] == "weight" and path[-2] != "q_norm" else 0.0
            if path[-1] == "weight" and path[-2] in by_muon:
                m, update = muon_update(m, g, step)
            else:
                m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
                update = m / (1 - 0.9 ** (step + 1)) / (np.sqrt(v / (1 - 0.95 ** (step + 1))) + 1e-8)
            own = float(rate) * (2 if "down_proj" in path else 1)
            if "q_proj" in path:
                own *= np.array([1, 5, 1])[:, None, None]
            reference[path] = x - own * (update + decay * x), m, v
    for path, array in flatten_dict(params).items():
        moved = np.linalg.norm(reference[path][0] - start[path])
        assert np.linalg.norm(array - reference[path][0]) < 1e-4 * moved, path


def muon_update(m, g, step, beta=0.95):
    """Nesterov's momentum, then five of Newton's and Schulz' iterations for each matrix, then the size of AdamW's."""
    m = beta * m + (1 - beta) * g
    ahead = beta * m / (1 - beta ** (step + 2)) + (1 - beta) * g / (1 - beta ** (step + 1))
    found = []
    for x in ahead:
        x = x / np.linalg.norm(x)
        for _ in range(5):
            square = x @ x.T
            x = 3.4445 * x - 4.7750 * square @ x + 2.0315 * square @ square @ x
        found.append(0.2 * np.sqrt(max(x.shape)) * x)
    return m, np.stack(found)


@pytest.mark.slow
def test_the_moving_average_of_fifty_steps_is_that_of_a_reference_in_float64():
    """And changes nothing of what is trained."""
    (trained, frozen), program, _, shardings, _ = pieces("llama", "new", PLANS["irregular"])
    mesh, batch, ends = make_mesh(MESH), packed(program.config.vocab_size), []
    for decay in (0.9, 0.0):
        rule = Optimizer(OptimizerSettings(ema=decay), 50).rule
        placed = state_shardings(trained, shardings, mesh, rule)
        state = first_state(jax.tree.map(jnp.copy, trained), rule, placed)
        step = compile_step(program, rule, placed, mesh)
        reference = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(trained)]
        for number in range(1, 51):
            state, _ = step(state, frozen, batch, np.float32(1e-2))
            kept = min(decay, (1 + number) / (10 + number))
            leaves = jax.tree.leaves(state.params)
            reference = [kept * old + (1 - kept) * np.asarray(new) for old, new in zip(reference, leaves, strict=True)]
        ends.append(leaves)
        for leaf, expected in zip(jax.tree.leaves(state.learned), reference, strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-6)
    for averaged, plain in zip(*ends, strict=True):
        np.testing.assert_array_equal(averaged, plain)
    assert state.average is None


@pytest.mark.parametrize("name", [pytest.param("muon", marks=pytest.mark.slow), "muon-outputs"])
def test_a_step_by_muon_moves_all_that_is_trained_and_keeps_one_moment_of_matrices(name):
    (trained, frozen), program, _, shardings, _ = pieces("llama", "new", PLANS["irregular"])
    rule = Optimizer(OptimizerSettings(optimizer=name), 8).rule
    mesh = make_mesh(MESH)
    placed = state_shardings(trained, shardings, mesh, rule)
    state = first_state(jax.tree.map(jnp.copy, trained), rule, placed)
    moments = sum(x.size for x in jax.tree.leaves(state.optimizer) if x.ndim)
    assert sum(x.size for x in jax.tree.leaves(trained)) < moments < 2 * sum(x.size for x in jax.tree.leaves(trained))
    step = compile_step(program, rule, placed, mesh)
    state, metrics = step(state, frozen, packed(program.config.vocab_size), np.float32(1e-2))
    assert metrics["sound"]
    for before, after in zip(jax.tree.leaves(trained), jax.tree.leaves(state.params), strict=True):
        assert not np.array_equal(before, after)
