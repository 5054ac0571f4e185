"""Masked growth: x + share (layer(x) - x), from the original model to the grown one."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from lesa_jax.base.errors import InputError
from lesa_jax.evaluation.run import evaluate
from lesa_jax.evaluation.settings import EvaluateSettings
from lesa_jax.models.decoder import block, embed, final_norm, head, make_context
from lesa_jax.models.load import load_model
from lesa_jax.models.losses import token_nll
from lesa_jax.models.parts import layers_of
from lesa_jax.models.views import View
from lesa_jax.training.mask import Mask
from lesa_jax.training.run import train
from lesa_jax.training.segments import merge
from lesa_jax.training.step import Program, hidden_states, mean_gradient
from tests.support.packed import packed
from tests.support.settings import train_settings
from tests.support.tiny import tiny
from tests.support.training import rows
from tests.support.trees import PLANS, by_name, full_by_name, pieces

SLOW = pytest.mark.slow


def test_shares_rise_in_linear_steps():
    mask = Mask((1, 3), 4)
    np.testing.assert_array_equal(mask.shares(0, 5), [1, 0, 1, 0, 1])
    np.testing.assert_array_equal(mask.shares(2, 5), [1, 0.5, 1, 0.5, 1])
    np.testing.assert_array_equal(mask.shares(9, 5), np.ones(5))


def loss_by_layers(params, batch, config, shares):
    """All layers in one scan, documents one at a time, the mask written out."""
    total = jnp.zeros(())
    for start, stop in ((0, 10), (10, 21)):
        positions = jnp.arange(stop - start)[None]
        context = make_context(positions, config)

        def step(x, layer_and_share, context=context):
            layer, share = layer_and_share
            return x + share * (block(layer, x, context, View(), config) - x), None

        x = embed(params, batch.tokens[0, :, start:stop], positions, config)
        x, _ = jax.lax.scan(step, x, (layers_of(params, config), shares))
        x = final_norm(params, x, config)
        nll = token_nll(x, head(params, config), batch.targets[0, :, start:stop])
        total = total + jnp.sum(nll * batch.weights[0, :, start:stop])
    return total / jnp.sum(batch.weights)


@pytest.mark.parametrize(
    ("train", "plan", "step"),
    [
        pytest.param("new", "irregular", 3, marks=SLOW),
        pytest.param("new", "top", 0, marks=SLOW),
        pytest.param("all", "top", 1, marks=SLOW),
    ],
)
def test_loss_and_gradient_are_those_of_the_mask_written_out(train, plan, step):
    (trained, frozen), program, leaves, _, chosen = pieces("llama", train, PLANS[plan], "block")
    config = program.config
    masked = Program(config, program.segments, "float32", "block", program.train_head, Mask(PLANS[plan].new_layers, 4))
    batch = packed(config.vocab_size)
    step_gradient = jax.jit(functools.partial(mean_gradient, program=masked))
    losses, _, gradient = step_gradient(trained, frozen, batch, step=step)
    shares = jnp.array([step / 4 if i in PLANS[plan].new_layers else 1.0 for i in range(config.num_layers)])
    params, _ = load_model(tiny("llama"))
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    reference = jax.jit(jax.value_and_grad(loss_by_layers), static_argnums=2)
    truth, full_gradient = reference(params, batch, config, shares)
    np.testing.assert_allclose(losses.nll, truth, rtol=1e-5)
    ours, theirs = by_name(gradient, leaves), full_by_name(full_gradient, config)
    scale = max(np.abs(value).max() for value in theirs.values())
    assert len(ours) == len(chosen) == len(flatten_dict(ours))
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-5, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_at_share_one_every_layer_is_itself_to_the_bit(dtype):
    (trained, frozen), program, *_ = pieces("llama", "new", PLANS["irregular"], dtype=dtype)
    params, batch = merge(trained, frozen), packed(program.config.vocab_size)
    masked = replace(program, mask=Mask(PLANS["irregular"].new_layers, 4))
    context = make_context(batch.positions[0], program.config, batch.documents[0])
    run = jax.jit(hidden_states, static_argnames="program")
    plain, after, during = (
        run(params, batch.tokens[0], batch.positions[0], context, program=one, step=step)
        for one, step in ((program, 0), (masked, 4), (masked, 3))
    )
    np.testing.assert_array_equal(after, plain)
    assert np.abs(np.asarray(during - plain, np.float32)).max() > 1e-3


@SLOW
def test_a_run_begins_as_the_original_and_ends_as_a_plain_model(place):
    train(train_settings(place, "masked", mask_steps=4))
    measured = [row["eval_loss"] for row in rows(place / "masked") if row["eval_loss"] is not None]
    options = {"text": place / "eval.txt", "sequence_length": 32}
    assert measured[0] == pytest.approx(evaluate(EvaluateSettings(str(place / "base"), **options))["nll"], rel=1e-5)
    final = evaluate(EvaluateSettings(str(place / "masked" / "final"), **options))
    assert measured[-1] == pytest.approx(final["nll"], rel=1e-5)
    assert measured[-1] < measured[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_steps": 7}, "--mask-steps 7: must end within the run's 6 steps"),
        ({"mask_steps": -1}, "--mask-steps -1: must not be negative"),
        ({"mask_steps": 2, "model": "base", "train": "all"}, "no growth.json"),
    ],
)
def test_masks_that_cannot_be(place, changes, message):
    changes = changes | ({"model": str(place / "base")} if "model" in changes else {})
    with pytest.raises(InputError, match=message):
        train(train_settings(place, "refused", **changes))
