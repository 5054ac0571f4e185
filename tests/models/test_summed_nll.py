"""The training loss: its value and both its gradients are those of the plain formula, whatever the chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax.models.losses import Head, summed_nll
from tests.support.heads import HEADS

BATCH, TOKENS, WIDTH, VOCAB = 3, 10, 8, 17


def example(kind="llama"):
    rng = np.random.default_rng(0)
    bias, cap = HEADS[kind]
    hidden = jnp.asarray(rng.standard_normal((BATCH, TOKENS, WIDTH)), jnp.float32)
    weight = jnp.asarray(rng.standard_normal((VOCAB, WIDTH)), jnp.float32)
    head = Head(weight, jnp.asarray(rng.standard_normal(VOCAB), jnp.float32) if bias else None, cap)
    targets = jnp.asarray(rng.integers(0, VOCAB, (BATCH, TOKENS)), jnp.int32)
    weights = jnp.asarray(rng.integers(0, 2, (BATCH, TOKENS)), jnp.float32)
    return hidden, head, targets, weights


def plain(hidden, head, targets, weights):
    logits = jnp.einsum("bte,ve->btv", hidden, head.weight)
    logits = logits if head.bias is None else logits + head.bias[None, None]
    logits = logits if head.cap is None else head.cap * jnp.tanh(logits / head.cap)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return -jnp.sum(weights * chosen)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_value_and_gradients_do_not_depend_on_the_chunks(chunk, kind):
    hidden, head, targets, weights = example(kind)
    truth, (dx, dh) = jax.value_and_grad(plain, (0, 1))(hidden, head, targets, weights)
    value, (our_dx, our_dh) = jax.value_and_grad(summed_nll, (0, 1))(hidden, head, targets, weights, True, chunk)
    np.testing.assert_allclose(value, truth, rtol=1e-6)
    np.testing.assert_allclose(summed_nll(hidden, head, targets, weights, False, chunk), truth, rtol=1e-6)
    np.testing.assert_allclose(our_dx, dx, atol=2e-6)
    for ours, theirs in zip(*map(jax.tree.leaves, (our_dh, dh)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_upstream_gradient_scales_both():
    hidden, head, targets, weights = example()
    once = jax.grad(summed_nll, (0, 1))(hidden, head, targets, weights, True)
    thrice = jax.grad(lambda *x: 3 * summed_nll(*x, True), (0, 1))(hidden, head, targets, weights)
    for a, b in zip(*map(jax.tree.leaves, (once, thrice)), strict=True):
        np.testing.assert_allclose(3 * a, b, rtol=1e-6)


def test_gradient_by_finite_differences():
    hidden, head, targets, weights = example()
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), (hidden, head))
        step = jnp.asarray(np.random.default_rng(1).standard_normal(hidden.shape))
        up, down = (plain(wide[0] + sign * 1e-6 * step, wide[1], targets, weights) for sign in (1, -1))
        slope = float((up - down) / 2e-6)
    gradient = jax.grad(summed_nll)(hidden, head, targets, weights, False)
    assert float(jnp.vdot(gradient, step.astype(jnp.float32))) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize(("train_head", "products"), [(False, 2), (True, 3)])
def test_nothing_is_computed_twice(train_head, products):
    """Matrix products with the head in one chunk, counted in the compiled gradient."""
    hidden, head, targets, weights = example()
    wanted = (0, 1) if train_head else 0
    gradient = jax.jit(jax.grad(lambda *x: summed_nll(*x, train_head), wanted))
    flops = gradient.lower(hidden, head, targets, weights).compile().cost_analysis()["flops"]
    assert products <= flops / (2 * BATCH * TOKENS * VOCAB * WIDTH) < products + 0.9


def test_half_precision_stays_near():
    hidden, head, targets, weights = example()
    value = summed_nll(hidden.astype(jnp.bfloat16), head, targets, weights, False)
    assert value.dtype == jnp.float32
    assert float(value) == pytest.approx(float(plain(hidden, head, targets, weights)), rel=1e-2)
