"""The small network that LESA trains to predict a layer's weights from the layers on both sides.

Architecture, loss, optimiser and initialisation are those of the public code of LESA (arXiv 2502.13794, section 3.2;
github.com/yangyifei729/LESA): a ReLU network with two hidden layers of 256, AdamW, ten epochs in batches of 64. One
sample is one singular direction k of one interior layer l: from rows k of V_{l-1} and V_{l+1}, predict row k of V_l.

All epochs are one jitted `lax.scan` over steps. The sample array, three times the size of V, never exists: a step
gathers its rows of V by index. Everything may be vmapped over weight kinds, seeds and norm weights.
"""

import functools
import itertools
import math
from typing import Any, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from lesa_jax.planning.methods import PUBLISHED, PredictorSettings

Params = Any  # the "params" collection of a Predictor

# PyTorch's float32 products are full float32; accelerators would otherwise round to TF32 or bfloat16.
_einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


WEIGHT_DECAY = 0.01  # of AdamW, torch's default, as in the public code


def uniform_init(fan_in: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what `torch.nn.Linear` gives both its weight and its bias."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class Predictor(nn.Module):
    """Linear(2*in, hidden) ReLU Linear(hidden, hidden) ReLU Linear(hidden, in)."""

    features: int
    hidden_size: int

    def setup(self):
        self.w1_HxI, self.b1_H = self.linear("first", 2 * self.features, self.hidden_size, transposed=True)
        self.w2_HxG, self.b2_G = self.linear("second", self.hidden_size, self.hidden_size)
        self.w3_GxO, self.b3_O = self.linear("third", self.hidden_size, self.features)

    def linear(self, name: str, fan_in: int, out: int, transposed: bool = False) -> tuple[Array, Array]:
        init = uniform_init(fan_in)
        kernel = self.param(f"{name}_kernel", init, (out, fan_in) if transposed else (fan_in, out))
        return kernel, self.param(f"{name}_bias", init, (out,))

    def hidden(self, x_BxI: Float[Array, "batch two_in"]) -> Float[Array, "batch hidden"]:
        """Activations h before the last layer: the output is h @ third_kernel + third_bias, so of rank hidden + 1."""
        # The first weight is stored [out, in] and its product kept transposed: then forward and weight gradient both
        # are row-major products for the CPU, 1.15 times as fast a step as [in, out] all through.
        h1_HxB = nn.relu(_einsum("hi,bi->hb", self.w1_HxI, x_BxI) + self.b1_H[:, None])
        return nn.relu(_einsum("hb,hg->bg", h1_HxB, self.w2_HxG) + self.b2_G[None, :])

    def __call__(self, x_BxI: Float[Array, "batch two_in"]) -> Float[Array, "batch in"]:
        return _einsum("bg,go->bo", self.hidden(x_BxI), self.w3_GxO) + self.b3_O[None, :]


@flax.struct.dataclass
class Fit:
    """A trained predictor and how its training went.

    A step's loss is taken before its update; steps that had no sample left (cut directions) have loss 0.
    `relative_error` is sum (p - y)^2 / sum y^2 over an epoch's batches: 1 is what predicting zero would cost.
    """

    params: Params
    losses: Float[Array, "*batch epochs steps"]
    epoch_losses: Float[Array, "*batch epochs"]
    relative_error: Float[Array, "*batch epochs"]


@functools.partial(jax.jit, static_argnames=("features", "settings"))
def init_params(key: PRNGKeyArray, features: int, settings: PredictorSettings) -> Params:
    """Fresh float32 parameters of a predictor for rows of length `features`.

    Distributed as those of `Predictor.init`, but cut from one draw: six random generators take XLA over a second to
    compile for a CPU, one a quarter of that.
    """
    x = jax.ShapeDtypeStruct((1, 2 * features), jnp.float32)
    shapes = jax.eval_shape(Predictor(features, settings.hidden_size).init, key, x)["params"]
    leaves, structure = jax.tree.flatten(shapes)
    fan_in = {"first": 2 * features, "second": settings.hidden_size, "third": settings.hidden_size}
    bounds = [fan_in[name.split("_")[0]] ** -0.5 for name in sorted(shapes)]
    ends = list(itertools.accumulate(leaf.size for leaf in leaves))
    draw = jax.random.uniform(key, (ends[-1],), minval=-1, maxval=1)
    parts = zip(jnp.split(draw, ends[:-1]), bounds, leaves, strict=True)
    return structure.unflatten([bound * part.reshape(leaf.shape) for part, bound, leaf in parts])


def predict(params: Params, x: Float[Array, "batch two_in"]) -> Float[Array, "batch in"]:
    """The network's output for rows that are two neighbours' rows side by side, the lower layer's first."""
    return cast(Array, _module(params).apply({"params": params}, x))


def hidden_features(params: Params, x: Float[Array, "batch two_in"]) -> Float[Array, "batch hidden"]:
    """See `Predictor.hidden`."""
    return cast(Array, _module(params).apply({"params": params}, x, method="hidden"))


def _module(params: Params) -> Predictor:
    hidden, features = params["third_kernel"].shape
    return Predictor(features, hidden)


def predictor_loss(
    p: Float[Array, "batch in"], y: Float[Array, "batch in"], norm_weight: float | Float[Array, ""]
) -> Float[Array, ""]:
    """(1 - lam) * mean((p - y)^2) + lam * (||p||_F - ||y||_F)^2, both norms over the whole batch."""
    return _masked_loss(p, y, jnp.ones(p.shape[0], p.dtype), norm_weight)[0]


def _masked_loss(p, y, used, norm_weight):
    """The loss over the rows whose `used` is 1; also the sums of (p - y)^2 and y^2."""
    p, y = p * used[:, None], y * used[:, None]
    error, energy = jnp.sum(jnp.square(p - y)), jnp.sum(jnp.square(y))
    mean = error / (jnp.maximum(jnp.sum(used), 1) * y.shape[1])
    loss = (1 - norm_weight) * mean + norm_weight * jnp.square(_norm(p) - jnp.sqrt(energy))
    return loss, (error, energy)


def _norm(x):
    """Frobenius norm with gradient 0, not NaN, at 0 (a batch without samples)."""
    square = jnp.sum(jnp.square(x))
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


@functools.partial(jax.jit, static_argnames=("layers", "settings", "held_out"))
def sample_order(
    key: PRNGKeyArray,
    kept: Bool[Array, " rows"],
    layers: int,
    settings: PredictorSettings,
    held_out: tuple[int, ...] = (),
) -> tuple[Int[Array, "epochs steps batch"], Float[Array, "epochs steps batch"]]:
    """Which samples each step sees: every kept direction of every interior layer once an epoch, in a fresh order.

    Layers that are `held_out` are no targets, but still inputs of their neighbours' samples.

    Returns:
      Sample numbers ((l - 1) * rows + k for layer l, direction k), and 1 where a slot of a batch holds a sample, 0
      where it is padding. Samples fill the batches from the front, as a torch DataLoader with shuffle=True does that
      was given the kept directions only, its last batch partial; steps after that are empty.
    """
    targets = np.setdiff1d(np.arange(1, layers - 1), held_out)
    taught = jnp.zeros(layers - 2, bool).at[targets - 1].set(True)
    out_of_use = ~(taught[:, None] & kept[None, :]).reshape(-1)
    count = out_of_use.shape[0]
    steps = -(-len(targets) * kept.shape[0] // settings.batch_size)
    size = steps * settings.batch_size
    used = (jnp.arange(size) < count - jnp.sum(out_of_use)).astype(jnp.float32)

    draws = jax.random.bits(key, (settings.epochs, count))
    last, number = (jnp.broadcast_to(x[None], draws.shape) for x in (out_of_use, jnp.arange(count, dtype=jnp.int32)))
    order = lax.sort((last, draws, number), num_keys=2)[2][:, :size]
    order = jnp.pad(order, ((0, 0), (0, size - order.shape[1])))
    shape = (settings.epochs, steps, settings.batch_size)
    return order.reshape(shape), jnp.broadcast_to(used.reshape(1, *shape[1:]), shape)


@functools.partial(jax.jit, static_argnames="settings")
def train(
    params: Params,
    v: Float[Array, "layers rows in"],
    order: Int[Array, "epochs steps batch"],
    used: Float[Array, "epochs steps batch"],
    norm_weight: float | Float[Array, ""],
    settings: PredictorSettings,
    learning_rate: float | Float[Array, ""] | None = None,
) -> Fit:
    """Trains from given parameters on a given order of samples (see `sample_order`).

    `learning_rate` is by default that of the settings; like `norm_weight` it may be traced, for vmapping over it.
    """
    layers, rows, features = v.shape
    flat = v.reshape(layers * rows, features)

    def batch(sample):
        # Sample s is row s + rows of the flat stack; its neighbours' rows lie one layer, `rows` rows, to either side.
        low, middle, high = (flat.at[sample + i * rows].get(mode="promise_in_bounds") for i in range(3))
        return jnp.concatenate([low, high], axis=1), middle

    step = _step(norm_weight, settings.learning_rate if learning_rate is None else learning_rate)
    used = used.astype(v.dtype)
    steps = (order.reshape(-1, order.shape[-1]), used.reshape(-1, used.shape[-1]))
    (params, _), logs = lax.scan(
        lambda carry, inputs: step(carry, *batch(inputs[0]), inputs[1]), (params, init_state(params)), steps
    )
    return fit_of(params, logs, used.reshape(order.shape))


def init_state(params: Params) -> Any:
    """Of the optimiser, before the first step."""
    return adamw(0.0).init(params)


def _step(norm_weight, learning_rate):
    """A step of training: (params, state), inputs, targets and which rows are samples -> the next, and what it logs."""
    optimizer = adamw(learning_rate)

    def objective(params, x, y, used):
        return _masked_loss(predict(params, x), y, used, norm_weight)

    def step(carry, x, y, used):
        params, state = carry
        (loss, sums), grads = jax.value_and_grad(objective, has_aux=True)(params, x, y, used)
        updates, state = optimizer.update(grads, state, params, active=used[0])  # samples fill a batch from the front
        return (optax.apply_updates(params, updates), state), jnp.stack([loss, *sums])

    return step


@functools.partial(jax.jit, donate_argnums=(0, 1))
def train_on(
    params: Params,
    state: optax.ScaleByAdamState,
    x: Float[Array, "steps batch two_in"],
    y: Float[Array, "steps batch in"],
    used: Float[Array, "steps batch"],
    count: int | Int[Array, ""],
    norm_weight: float | Float[Array, ""],
    learning_rate: float | Float[Array, ""],
) -> tuple[Params, optax.ScaleByAdamState, Float[Array, "steps 3"]]:
    """The first `count` steps on batches that somebody has laid out, for rows that are not on the device.

    Their number is traced: however many steps a kind has, one program does. Consumes parameters and state.
    """
    step = _step(norm_weight, learning_rate)

    def at(number, carry):
        params, state, logs = carry
        (params, state), log = step((params, state), x[number], y[number], used[number])
        return params, state, logs.at[number].set(log)

    return lax.fori_loop(0, count, at, (params, state, jnp.zeros((len(x), 3), x.dtype)))


def fit_of(
    params: Params,
    logs: Float[np.ndarray | Array, "all_steps 3"],
    used: Float[np.ndarray | Array, "epochs steps batch"],
) -> Fit:
    """What training was, from the loss and the sums of (p - y)^2 and y^2 of each step, epochs one after the other."""
    losses, error, energy = jnp.moveaxis(jnp.asarray(logs).reshape(*used.shape[:2], 3), -1, 0)
    energy = jnp.sum(energy, axis=1)
    return Fit(
        params=params,
        losses=losses,
        epoch_losses=jnp.sum(losses, axis=1) / jnp.maximum(jnp.sum(used[:, :, 0], axis=1), 1),
        relative_error=jnp.sum(error, axis=1) / jnp.where(energy > 0, energy, 1),
    )


def adamw(
    learning_rate: float | Float[Array, ""], weight_decay: float = WEIGHT_DECAY
) -> optax.GradientTransformationExtraArgs:
    """AdamW (betas 0.9 and 0.999, eps 1e-8) as an Optax transformation that can sit a step out.

    The same numbers as `optax.adamw` up to rounding, but with one division for a weight instead of three, which is what
    bounds the update on a CPU (0.36 against 0.49 ms a step at width 1024).

    `update` takes `active` besides: 1, or 0 to change neither parameters nor state. The rate may be traced.
    """
    b1, b2, eps = 0.9, 0.999, 1e-8

    def init(params: Params) -> optax.ScaleByAdamState:
        mu, nu = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))  # two, to be given away
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), mu, nu)

    def update(updates, state, params=None, **extra):
        grads, active = updates, extra["active"]
        count = state.count + active.astype(jnp.int32)
        t = jnp.maximum(count, 1).astype(active.dtype)
        # 1 - b^t without cancellation: at b = 0.999 and t = 1 the plain form has lost four digits in float32.
        step_size = active * learning_rate / -jnp.expm1(t * math.log(b1))
        decay = active * learning_rate * weight_decay
        root_correction = lax.rsqrt(-jnp.expm1(t * math.log(b2)))
        mu = jax.tree.map(lambda m, g: m + active * (1 - b1) * (g - m), state.mu, grads)
        nu = jax.tree.map(lambda v, g: v + active * (1 - b2) * (g * g - v), state.nu, grads)
        updates = jax.tree.map(
            lambda p, m, v: -decay * p - step_size * m / (jnp.sqrt(v) * root_correction + eps), params, mu, nu
        )
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)


def fit(
    v: Float[Array, "layers rows in"],
    kept: Bool[Array, " rows"],
    key: PRNGKeyArray,
    settings: PredictorSettings = PUBLISHED,
    norm_weight: float | Float[Array, ""] | None = None,
    held_out: tuple[int, ...] = (),
) -> Fit:
    """Trains a predictor on the interior layers of `v`, at least three layers.

    Args:
      v: rows to predict; singular directions, or rows of the weights themselves.
      kept: rows that take part; a null direction has no meaning and would be a sample of noise.
      key: seeds the initial weights and the order of samples.
      norm_weight: lam, by default `settings.norm_weight`; may be traced, for vmapping over it.
      held_out: layers that it is not taught to predict.

    Not jitted itself: its three parts are, so that shapes which share a part share its compilation.
    """
    init_key, order_key = jax.random.split(key)
    order, used = sample_order(order_key, kept, v.shape[0], settings, held_out)
    lam = settings.norm_weight if norm_weight is None else norm_weight
    return train(init_params(init_key, v.shape[2], settings), v, order, used, lam, settings)


def param_shapes(features: int, settings: PredictorSettings) -> Params:
    """Of a predictor for rows of length `features`."""
    return jax.eval_shape(lambda: init_params(jax.random.key(0), features, settings))
