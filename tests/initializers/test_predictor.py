"""The predictor against PyTorch, its loss against the formula, and what the norm term does."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from lesa_jax.initializers.lesa.predictor import (
    Predictor,
    PredictorSettings,
    adamw,
    fit,
    hidden_features,
    init_params,
    predict,
    predictor_loss,
    sample_order,
    train,
)

# experiments/ is no package: its scripts are run, and this one is also the reference here.
spec = importlib.util.spec_from_file_location(
    "torch_lesa", Path(__file__).parents[2] / "experiments" / "bench" / "torch_lesa.py"
)
assert spec is not None
assert spec.loader is not None
torch_lesa = importlib.util.module_from_spec(spec)
spec.loader.exec_module(torch_lesa)

KEY = jax.random.key(0)
NAMES = [f"{layer}_{part}" for layer in ("first", "second", "third") for part in ("kernel", "bias")]


def gaussian_rows(layers: int, rows: int, features: int) -> np.ndarray:
    """Rows like those of V: unit length over all layers together."""
    v = np.random.default_rng(0).standard_normal((layers, rows, features), np.float32)
    return v / np.float32(np.sqrt(layers * features))


def to_torch(params, features: int) -> torch.nn.Sequential:
    net = torch_lesa.make_predictor(features, params["first_kernel"].shape[0])
    net.to(torch.from_numpy(np.array(params["first_kernel"])).dtype)
    arrays = {name: torch.from_numpy(np.array(leaf)) for name, leaf in params.items()}
    kernels = (arrays["first_kernel"], arrays["second_kernel"].T, arrays["third_kernel"].T)
    with torch.no_grad():
        for layer, name, kernel in zip((0, 2, 4), ("first", "second", "third"), kernels, strict=True):
            net[layer].weight.copy_(kernel)
            net[layer].bias.copy_(arrays[f"{name}_bias"])
    return net


@pytest.mark.parametrize(("dtype", "hidden", "tolerance"), [("float32", 32, 1e-4), ("float64", 256, 1e-9)])
def test_training_follows_torch(dtype, hidden, tolerance):
    """Same initial weights, same batches: the same losses over 200 steps, partial last batches included.

    In float32 trajectories part, by 1e-3, once rounding switches a ReLU. With 256 units torch's own leaves its float64
    trajectory so within 200 steps, for most seeds; with 32 units none of ten does, and the agreement is 1e-6.
    """
    layers, rows, features = 7, 250, 48
    settings = PredictorSettings(epochs=11, hidden_size=hidden)
    with jax.enable_x64(dtype == "float64"):
        v = gaussian_rows(layers, rows, features).astype(dtype)
        params = init_params(KEY, features, settings)
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        net = to_torch(params, features)
        order, used = sample_order(KEY, jnp.ones(rows, bool), layers, settings)
        ours = train(params, jnp.asarray(v), order, used, settings.norm_weight, settings)

        batches = [
            torch.from_numpy(np.array(slots[mask > 0]))
            for slots, mask in zip(np.array(order).reshape(-1, 64), np.array(used).reshape(-1, 64), strict=True)
        ]
        assert len(batches) >= 200
        assert len(batches[-1]) == 5 * 250 % 64
        theirs = torch_lesa.train(net, *torch_lesa.make_samples(torch.from_numpy(v)), batches)
        np.testing.assert_allclose(ours.losses.ravel(), theirs, rtol=tolerance)
        x = v[[0, 1]].swapaxes(0, 1).reshape(rows, -1)
        trained = net(torch.from_numpy(x)).detach()
        np.testing.assert_allclose(predict(ours.params, jnp.asarray(x)), trained, rtol=tolerance, atol=tolerance)


def test_loss_is_the_formula():
    p, y = np.random.default_rng(0).standard_normal((2, 8, 5))
    norms = np.linalg.norm(p), np.linalg.norm(y)
    expected = 0.7 * np.mean((p - y) ** 2) + 0.3 * (norms[0] - norms[1]) ** 2
    np.testing.assert_allclose(predictor_loss(jnp.asarray(p), jnp.asarray(y), 0.3), expected, rtol=1e-5)


def test_logged_losses_are_the_formula_on_the_samples_of_the_step():
    """With a learning rate of zero every step sees the initial parameters."""
    settings = PredictorSettings(hidden_size=16, epochs=1, batch_size=20, learning_rate=0.0)
    v = jnp.asarray(gaussian_rows(4, 13, 6))
    params = init_params(KEY, 6, settings)
    order, used = sample_order(KEY, jnp.ones(13, bool), 4, settings)
    result = train(params, v, order, used, 0.25, settings)
    for loss, slots, mask in zip(result.losses[0], order[0], used[0], strict=True):
        layer, row = np.divmod(slots[mask > 0], 13)
        x = jnp.concatenate([v[layer, row], v[layer + 2, row]], axis=1)
        np.testing.assert_allclose(loss, predictor_loss(predict(params, x), v[layer + 1, row], 0.25), rtol=1e-5)
    np.testing.assert_allclose(result.epoch_losses[0], np.mean(result.losses), rtol=1e-6)


def test_gradient_against_finite_differences():
    def loss(params):
        return predictor_loss(predict(params, x), y, 0.1)

    def along(t):
        return loss(jax.tree.map(lambda p, d: p + t * d, params, direction))

    with jax.enable_x64(True):
        start, direction = (init_params(jax.random.key(i), 5, PredictorSettings(hidden_size=7)) for i in (0, 1))
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), start)
        x, y = (jnp.asarray(a) for a in np.split(np.random.default_rng(0).standard_normal((3, 15)), [10], axis=1))
        grads = jax.grad(loss)(params)
        exact = sum(jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True))
        np.testing.assert_allclose(exact, (along(1e-6) - along(-1e-6)) / 2e-6, rtol=1e-7)


def test_adamw_is_optax_adamw_and_can_sit_a_step_out():
    ours = theirs = {"w": jax.random.normal(KEY, (5, 3))}
    optimizer = adamw(0.01, weight_decay=0.1)
    reference = optax.adamw(0.01, weight_decay=0.1)
    state, reference_state = optimizer.init(ours), reference.init(theirs)
    for step in range(1, 8):
        grads = {"w": jax.random.normal(jax.random.key(step), (5, 3))}
        active = step != 4
        updates, state = optimizer.update(grads, state, ours, active=jnp.float32(active))
        ours = optax.apply_updates(ours, updates)
        if active:
            updates, reference_state = reference.update(grads, reference_state, theirs)
            theirs = optax.apply_updates(theirs, updates)
        np.testing.assert_allclose(ours["w"], theirs["w"], rtol=1e-5)
    assert not np.allclose(ours["w"], jax.random.normal(KEY, (5, 3)), rtol=1e-2)


def test_norm_term_repairs_the_collapse():
    """Unpredictable rows: without the norm term the best prediction is nearly zero, with it the length is right."""
    v = jnp.asarray(gaussian_rows(8, 64, 32))
    settings = PredictorSettings(hidden_size=32, epochs=20)
    x = jnp.concatenate([v[3], v[4]], axis=1)

    def length(norm_weight):
        return jnp.linalg.norm(predict(fit(v, jnp.ones(64, bool), KEY, settings, norm_weight).params, x))

    collapsed, repaired = jax.vmap(length)(jnp.array([0.0, 0.5]))
    typical = np.linalg.norm(v[3])
    assert collapsed < 0.3 * typical
    assert 0.8 * typical < repaired < 1.2 * typical


def test_relative_error_of_predicting_zero_is_one():
    settings = PredictorSettings(hidden_size=8, epochs=1, learning_rate=0.0)
    v = jnp.asarray(gaussian_rows(5, 20, 6))
    params = jax.tree.map(jnp.zeros_like, init_params(KEY, 6, settings))
    result = train(params, v, *sample_order(KEY, jnp.ones(20, bool), 5, settings), 0.1, settings)
    np.testing.assert_allclose(result.relative_error, 1, rtol=1e-5)


def test_every_sample_once_an_epoch_in_a_fresh_order():
    settings = PredictorSettings(epochs=3, batch_size=32)
    order, used = sample_order(KEY, jnp.ones(30, bool), 7, settings)
    epochs = [np.array(slots[mask > 0]) for slots, mask in zip(order, used, strict=True)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(150))
    assert not np.array_equal(epochs[0], epochs[1])


def test_held_out_layers_are_no_targets():
    settings = PredictorSettings(epochs=2, batch_size=16)
    order, used = sample_order(KEY, jnp.arange(10) < 7, 8, settings, (2, 5))
    assert order.shape == (2, 3, 16)  # 4 layers of 10 rows, where all 6 would fill 4 batches
    for slots, mask in zip(order, used, strict=True):
        layer, row = np.divmod(np.array(slots[mask > 0]), 10)
        seen = sorted(zip((layer + 1).tolist(), row.tolist(), strict=True))
        assert seen == [(target, direction) for target in (1, 3, 4, 6) for direction in range(7)]


def test_cut_directions_take_no_part():
    """Training with cut rows is training without them, whatever they hold, to the last update."""
    settings = PredictorSettings(hidden_size=16, epochs=2, batch_size=16)
    kept = np.arange(50) % 3 > 0
    v = gaussian_rows(5, 50, 8)
    order, used = sample_order(KEY, jnp.asarray(kept), 5, settings)
    rows = np.array(order)[np.array(used) > 0] % 50
    assert np.all(kept[rows])
    assert len(rows) == 2 * 3 * kept.sum()
    assert not np.any(np.diff(used.reshape(2, -1), axis=1) > 0)

    params = init_params(KEY, 8, settings)
    whole = train(params, jnp.asarray(v), order, used, 0.01, settings)
    # The same batches by the numbers of a stack without the cut rows.
    layer, row = np.divmod(np.array(order), 50)
    dense = jnp.asarray(np.where(np.array(used) > 0, layer * kept.sum() + np.cumsum(kept)[row] - 1, 0))
    steps = -(-3 * int(kept.sum()) // 16)
    short = train(params, jnp.asarray(v[:, kept]), dense[:, :steps], used[:, :steps], 0.01, settings)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), whole.params, short.params)
    np.testing.assert_allclose(whole.epoch_losses, short.epoch_losses, rtol=1e-5)
    assert not np.any(whole.losses[:, steps:])


def test_training_without_samples_changes_nothing():
    settings = PredictorSettings(hidden_size=8, epochs=1)
    params = init_params(KEY, 6, settings)
    nothing = train(params, jnp.zeros((4, 10, 6)), *sample_order(KEY, jnp.zeros(10, bool), 4, settings), 0.1, settings)
    jax.tree.map(np.testing.assert_array_equal, nothing.params, params)


def test_same_key_same_bytes():
    v, kept = jnp.asarray(gaussian_rows(5, 40, 8)), jnp.ones(40, bool)
    settings = PredictorSettings(hidden_size=16, epochs=2)
    first, again, other = (fit(v, kept, jax.random.key(seed), settings) for seed in (3, 3, 4))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert not np.allclose(first.losses, other.losses, rtol=1e-3)


def test_seeds_and_norm_weights_can_be_batched():
    v, kept = jnp.asarray(gaussian_rows(5, 40, 8)), jnp.ones(40, bool)
    settings = PredictorSettings(hidden_size=16, epochs=2)
    keys, lams = jax.random.split(KEY, 2), jnp.array([0.0, 0.1])
    grid = jax.vmap(lambda key: jax.vmap(lambda lam: fit(v, kept, key, settings, lam))(lams))(keys)
    for i in range(2):
        for j in range(2):
            alone = fit(v, kept, keys[i], settings, float(lams[j]))
            np.testing.assert_allclose(grid.losses[i, j], alone.losses, rtol=1e-4)
    assert not np.allclose(grid.losses[0, 0], grid.losses[0, 1], rtol=1e-3)


@pytest.mark.parametrize("source", ["one draw", "module", "torch"])
def test_initialisation_is_that_of_torch(source):
    """Uniform within 1/sqrt(fan in), weights and biases; all three ways to get one."""
    features, settings = 200, PredictorSettings(hidden_size=300)
    if source == "one draw":
        params = init_params(KEY, features, settings)
    elif source == "module":
        params = Predictor(features, settings.hidden_size).init(KEY, jnp.zeros((1, 2 * features)))["params"]
    else:
        torch.manual_seed(0)
        net = torch_lesa.make_predictor(features, settings.hidden_size)
        params = dict(zip(NAMES, (p.detach().numpy() for p in net.parameters()), strict=True))
    shapes = {"first": (400, 300), "second": (300, 300), "third": (300, 200)}
    assert set(params) == set(NAMES)
    for name in NAMES:
        part, fan_in = np.asarray(params[name]), shapes[name.split("_")[0]][0]
        assert part.size == (np.prod(shapes[name.split("_")[0]]) if "kernel" in name else part.shape[0])
        assert 0.97 * fan_in**-0.5 < np.abs(part).max() <= fan_in**-0.5
        np.testing.assert_allclose(np.std(part), (3 * fan_in) ** -0.5, rtol=3 / np.sqrt(part.size))
        assert abs(np.mean(part)) < 3 * fan_in**-0.5 / np.sqrt(part.size)


def test_hidden_features_are_the_input_of_the_last_layer():
    params = init_params(KEY, 6, PredictorSettings(hidden_size=16))
    x = jax.random.normal(KEY, (9, 12))
    out = hidden_features(params, x) @ params["third_kernel"] + params["third_bias"][None, :]
    np.testing.assert_allclose(out, predict(params, x), rtol=1e-5, atol=1e-6)
