"""Training two trees is training the whole model with masked updates, only cheaper."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import unflatten_dict

from lesa_jax.families.model import ModelConfig
from lesa_jax.models.decoder import forward, head
from lesa_jax.models.load import load_model
from lesa_jax.models.losses import token_nll
from lesa_jax.parallel.mesh import make_mesh
from lesa_jax.training.optimizer import learning_rate, rates
from lesa_jax.training.state import first_state, state_shardings
from lesa_jax.training.step import Batch, compile_step, mean_gradient
from tests.support.packed import packed
from tests.support.tiny import tiny
from tests.support.trees import MESH, OPTIMIZER, PLANS, by_name, full_by_name, pieces


def full_loss(params, batch: Batch, config: ModelConfig):
    """Documents one at a time through the plain model: what packing must not change."""
    total = jnp.zeros(())
    for row in range(batch.tokens.shape[1]):
        for start, stop in ((0, 10), (10, 21)):
            hidden = forward(params, batch.tokens[0, row : row + 1, start:stop], config)
            targets = batch.targets[0, row : row + 1, start:stop]
            nll = token_nll(hidden, head(params, config), targets)
            total = total + jnp.sum(nll * batch.weights[0, row : row + 1, start:stop])
    return total / jnp.sum(batch.weights)


SLOW = pytest.mark.slow
CASES = [
    ("llama", "new", "irregular", "none"),
    *(pytest.param("llama", "new", name, "none", marks=SLOW) for name in PLANS if name != "irregular"),
    pytest.param("llama", "new", "top", "block", marks=SLOW),
    pytest.param("llama", "new", "top", "full", marks=SLOW),
    pytest.param("llama", "new+norms", "top", "none", marks=SLOW),
    pytest.param("llama", "all", "top", "none", marks=SLOW),
    pytest.param("llama", r"layers\.[14]\.mlp|lm_head|embed", "top", "none", marks=SLOW),
    pytest.param("qwen2", "new", "top", "none", marks=SLOW),
    pytest.param("mistral", "new", "irregular", "none", marks=SLOW),
    pytest.param("gemma3", "new", "irregular", "block", marks=SLOW),
]


@pytest.mark.parametrize(("family", "train", "plan", "remat"), CASES)
def test_loss_and_gradient_are_those_of_the_full_model(family, train, plan, remat):
    (trained, frozen), program, leaves, _, chosen = pieces(family, train, PLANS[plan], remat)
    batch = packed(program.config.vocab_size)
    losses, count, gradient = jax.jit(functools.partial(mean_gradient, program=program))(trained, frozen, batch)
    params, config = load_model(tiny(family))
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    truth, full_gradient = jax.jit(jax.value_and_grad(full_loss), static_argnums=2)(params, batch, config)
    assert count == np.sum(batch.weights)
    np.testing.assert_allclose(losses.nll, truth, rtol=1e-5)
    ours, theirs = by_name(gradient, leaves), full_by_name(full_gradient, config)
    assert ours.keys() == chosen
    scale = max(np.abs(theirs[name]).max() for name in chosen)
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-5, atol=1e-5 * scale, err_msg=name)


@SLOW
def test_steps_are_those_of_a_masked_full_model():
    """Three steps of clip and AdamW on the trained tree equal optax on the whole tree with everything else masked."""
    (trained, frozen), program, leaves, shardings, chosen = pieces("llama", "new", PLANS["top"])
    batch = packed(program.config.vocab_size)
    mesh = make_mesh(MESH)
    placed = state_shardings(trained, shardings, mesh, OPTIMIZER.rule)
    step = compile_step(program, OPTIMIZER.rule, placed, mesh)
    state = first_state(jax.tree.map(jnp.copy, trained), OPTIMIZER.rule, placed)

    params, config = load_model(tiny("llama"))
    params = {name: jnp.asarray(x, jnp.float32) for name, x in full_by_name(params, config).items()}
    reference = {name: params[name] for name in chosen}
    optimizer = optax.chain(
        optax.clip_by_global_norm(OPTIMIZER.settings.clip),
        optax.adamw(
            learning_rate(OPTIMIZER), 0.9, 0.95, weight_decay=0.1, mask={n: params[n].ndim > 1 for n in chosen}
        ),
    )
    moments = optimizer.init(reference)

    def loss_of(reference):
        everything = params | reference
        layers = {}
        for name in everything:
            if match := re.fullmatch(r"model\.layers\.0\.(.*)", name):
                stack = [everything[f"model.layers.{i}.{match[1]}"] for i in range(config.num_layers)]
                layers[tuple(match[1].split("."))] = jnp.stack(stack)
        flat = {tuple(n.split(".")): x for n, x in everything.items() if ".layers." not in n}
        return full_loss(unflatten_dict(flat | {("model", "layers", *k): v for k, v in layers.items()}), batch, config)

    gradient_of = jax.jit(jax.value_and_grad(loss_of))
    for rate in itertools.islice(rates(OPTIMIZER, 0), 3):
        state, metrics = step(state, frozen, batch, rate)
        truth, gradient = gradient_of(reference)
        np.testing.assert_allclose(metrics["loss"], truth, rtol=1e-5)
        np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(gradient), rtol=1e-4)
        updates, moments = optimizer.update(gradient, moments, reference)
        reference = optax.apply_updates(reference, updates)
    for name, value in by_name(state.params, leaves).items():
        # By tensor: where a gradient is all rounding, Adam makes an update of full size of it.
        moved = np.linalg.norm(reference[name] - params[name])
        assert np.linalg.norm(value - reference[name]) < 1e-3 * moved, name


def test_accumulated_parts_give_the_gradient_of_the_whole():
    (trained, frozen), program, *_ = pieces("llama", "new", PLANS["top"])
    parts = packed(program.config.vocab_size, batch=2, parts=3)
    whole = jax.tree.map(lambda x: x.reshape(1, 6, -1), parts)
    step = jax.jit(functools.partial(mean_gradient, program=program))
    results = [step(trained, frozen, batch) for batch in (parts, whole)]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_optimiser_state_exists_for_trained_leaves_only():
    (trained, _), _, _, shardings, _ = pieces("llama", "new", PLANS["top"])
    mesh = make_mesh(MESH)
    state = first_state(trained, OPTIMIZER.rule, state_shardings(trained, shardings, mesh, OPTIMIZER.rule))
    trained_bytes = sum(x.nbytes for x in jax.tree.leaves(state.params))
    assert sum(x.nbytes for x in jax.tree.leaves(state.optimizer)) == 2 * trained_bytes + 4  # and a count


def test_a_loss_that_is_not_finite_changes_nothing_from_then_on():
    (trained, frozen), program, _, shardings, _ = pieces("llama", "new", PLANS["top"])
    mesh = make_mesh(MESH)
    placed = state_shardings(trained, shardings, mesh, OPTIMIZER.rule)
    step = compile_step(program, OPTIMIZER.rule, placed, mesh)
    state = first_state(jax.tree.map(jnp.copy, trained), OPTIMIZER.rule, placed)
    good = packed(program.config.vocab_size)
    bad = good.replace(weights=good.weights.at[0, 0, 0].set(np.inf))
    for batch, sound in ((bad, False), (good, False)):
        state, metrics = step(state, frozen, batch, np.float32(1e-2))
        assert bool(metrics["sound"]) == sound
    for before, after in zip(jax.tree.leaves(trained), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(before, after)
