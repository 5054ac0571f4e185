"""Mixtures of experts: which experts a token goes through, and what they make of it. No token is dropped.

Shapes: N tokens, X experts, K of them chosen by a token, F an expert's width, E the residual stream's.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import Experts, ModelConfig
from lesa_jax.models.layers import ACTIVATIONS, linear
from lesa_jax.models.parts import part
from lesa_jax.parallel.mesh import AXIS_RULES, BATCH, mesh_of, row_shares

BLOCK_ROWS = 128  # of one expert's tokens, on a CPU

Activation: TypeAlias = Callable[[Array], Array]
# Gate [X, F, E], up [X, F, E] and down [X, E, F].
Matrices: TypeAlias = tuple[Array, Array, Array]


class Routing(NamedTuple):
    """What a router decided about tokens of any shape.

    Attributes:
      logits: of all experts, float32.
      chosen: the experts' numbers, the best first.
      weights: of what each of these says.
    """

    logits: Float[Array, "*tokens experts"]
    chosen: Int[Array, "*tokens chosen"]
    weights: Float[Array, "*tokens chosen"]


def mixture(
    layer: Tree, x_BxTxE: Float[Array, "batch tokens hidden"], config: ModelConfig
) -> tuple[Float[Array, "batch tokens hidden"], Routing]:
    """What the experts make of the normed residual stream, and who was asked. `layer` has no layer axis."""
    experts, activation = config.experts, ACTIVATIONS[config.activation]
    assert experts is not None
    names = experts.names
    routing = route(layer, x_BxTxE, experts)
    matrices = jax.tree.map(lambda weight: weight.astype(x_BxTxE.dtype), expert_matrices(layer, experts))
    y = on_shards(x_BxTxE, routing, matrices, activation)
    if experts.shared_width:
        gate, up = (linear(part(layer, name), x_BxTxE) for name in (names.shared_gate, names.shared_up))
        shared = linear(part(layer, names.shared_down), activation(gate) * up)
        if names.shared_router is not None:
            shared = jax.nn.sigmoid(linear(part(layer, names.shared_router), x_BxTxE)) * shared
        y = y + shared
    return y, routing


def expert_matrices(layer: Tree, experts: Experts) -> Matrices:
    """The experts' weights, however they are stored; with leading axes where `layer` has any."""
    names = experts.names
    if names.gate_up is not None:
        gate, up = jnp.split(stacked(layer, names.gate_up), 2, axis=-2)
    else:
        gate, up = stacked(layer, names.gate), stacked(layer, names.up)
    return gate, up, stacked(layer, names.down)


def stacked(layer: Tree, name: str | None) -> Array:
    """All experts' weight of one name: what is numbered has become an axis."""
    assert name is not None
    return part(layer, name.replace("*.", ""))["weight"]


def route(layer: Tree, x: Float[Array, "*tokens hidden"], experts: Experts) -> Routing:
    """The experts of each token, by float32 scores whatever the dtype of x."""
    router = part(layer, experts.names.router)["weight"].astype(jnp.float32)
    logits = jnp.einsum("...e,xe->...x", x.astype(jnp.float32), router)
    scores = jax.nn.softmax(logits, axis=-1) if experts.scoring == "softmax" else jax.nn.sigmoid(logits)
    wanted = scores
    if experts.names.selection_bias is not None:
        bias = part(layer, experts.names.selection_bias).astype(jnp.float32)
        wanted = wanted + jnp.broadcast_to(bias, wanted.shape)
    if experts.groups > 1:
        wanted = jnp.where(in_best_groups(wanted, experts), wanted, -jnp.inf)
    chosen = jax.lax.top_k(wanted, experts.per_token)[1]
    weights = jnp.take_along_axis(scores, chosen, axis=-1)
    if experts.normalised:
        weights = weights / (jnp.sum(weights, axis=-1, keepdims=True) + 1e-20)  # as DeepSeek: sigmoids can all be 0
    return Routing(logits, chosen, weights * experts.scale)


def in_best_groups(scores: Float[Array, "*tokens experts"], experts: Experts) -> Array:
    """Of each token's experts, whether they lie in the groups that it may choose from."""
    grouped = scores.reshape(*scores.shape[:-1], experts.groups, -1)
    best = jax.lax.top_k(grouped, 1 if experts.group_score == "best" else 2)[0].sum(axis=-1)
    kept = jax.nn.one_hot(jax.lax.top_k(best, experts.kept_groups)[1], experts.groups, dtype=jnp.bool_).any(axis=-2)
    return jnp.repeat(kept, grouped.shape[-1], axis=-1)


def on_shards(
    x_BxTxE: Float[Array, "batch tokens hidden"], routing: Routing, matrices: Matrices, activation: Activation
) -> Float[Array, "batch tokens hidden"]:
    """Each device asks its experts about the tokens of all devices that share them; their answers are added up.

    The mesh is the one that the arguments lie on; a traced array knows it. A batch that does not divide, as an
    evaluation's last rows, is there on every device.
    """
    mesh = mesh_of(x_BxTxE)
    if mesh is None:
        return ask(x_BxTxE, routing.chosen, routing.weights, matrices, activation)
    expert, ffn = AXIS_RULES["experts"], AXIS_RULES["ffn"]
    shared = x_BxTxE.shape[0] % row_shares(mesh.shape) == 0
    tokens = P(BATCH) if shared else P()

    def asked(x: Array, chosen: Array, weights: Array, matrices: Matrices) -> Array:
        if shared:
            x, chosen, weights = (jax.lax.all_gather(a, expert, tiled=True) for a in (x, chosen, weights))
        first = jax.lax.axis_index(expert) * matrices[0].shape[0]
        y = jax.lax.psum(ask(x, chosen - first, weights, matrices, activation), ffn)
        return jax.lax.psum_scatter(y, expert, tiled=True) if shared else jax.lax.psum(y, expert)

    return jax.shard_map(
        asked,
        mesh=mesh,
        in_specs=(tokens, tokens, tokens, (P(expert, ffn), P(expert, ffn), P(expert, None, ffn))),
        out_specs=tokens,
        check_vma=False,  # ragged_dot does not say along which axes its result varies
    )(x_BxTxE, routing.chosen, routing.weights, matrices)


def ask(x_BxTxE: Array, chosen: Array, weights: Array, matrices: Matrices, activation: Activation) -> Array:
    """The sum of the chosen experts' answers times their weights; experts that are not among `matrices` say nothing.

    On a CPU `ragged_dot` is a product of all tokens with every expert; there a loop asks the chosen ones. Which it is,
    is decided when the program is compiled, by what it is compiled for.
    """
    x_NxE = x_BxTxE.reshape(-1, x_BxTxE.shape[-1])
    chosen_NxK, weights_NxK = (a.reshape(x_NxE.shape[0], -1) for a in (chosen, weights))

    loop, sort = (functools.partial(way, activation=activation) for way in (by_loop, by_sorting))
    y_NxE = jax.lax.platform_dependent(x_NxE, chosen_NxK, weights_NxK, matrices, cpu=loop, default=sort)
    return y_NxE.reshape(x_BxTxE.shape)


def by_expert(
    chosen_NxK: Int[Array, "tokens chosen"], number: int
) -> tuple[Int[Array, " choices"], Bool[Array, " choices"], Int[Array, " experts"]]:
    """All tokens' choices in the order of their experts: their places, whether the expert is one of the `number` here
    (others come last), and how many each of these has."""
    chosen = chosen_NxK.reshape(-1)
    here = (chosen >= 0) & (chosen < number)
    order = jnp.argsort(jnp.where(here, chosen, number))
    return order, here[order], jnp.sum(jax.nn.one_hot(chosen, number, dtype=jnp.int32), axis=0)


def by_loop(
    x_NxE: Float[Array, "tokens hidden"],
    chosen_NxK: Int[Array, "tokens chosen"],
    weights_NxK: Float[Array, "tokens chosen"],
    matrices: Matrices,
    activation: Activation,
) -> Float[Array, "tokens hidden"]:
    """Blocks of tokens that go to one expert, one after the other: no more work than the chosen experts are.

    Each expert's tokens are filled up to whole blocks, with a row of zeros that stands behind all tokens.
    """
    (number, *_), (count, per_token) = matrices[0].shape, chosen_NxK.shape
    size = min(BLOCK_ROWS, count * per_token)
    most = -(-count * per_token // size) + number
    order, here, sizes_X = by_expert(chosen_NxK, number)
    blocks_X = -(-sizes_X // size)
    last_X = jnp.cumsum(blocks_X)  # the block behind each expert's
    expert = jnp.minimum(chosen_NxK.reshape(-1)[order], number - 1)
    ahead_X = (last_X - blocks_X) * size - (jnp.cumsum(sizes_X) - sizes_X)  # of rows filled in before each expert's
    row = jnp.where(here, jnp.arange(len(order)) + ahead_X[expert], most * size)
    token_S = jnp.full(most * size, count).at[row].set(order // per_token, mode="drop")
    weight_S = jnp.zeros(most * size).at[row].set(weights_NxK.reshape(-1)[order], mode="drop")
    expert_M = jnp.searchsorted(last_X, jnp.arange(most), side="right")

    rows_MxSxE = jnp.pad(x_NxE, ((0, 1), (0, 0)))[token_S].reshape(most, size, -1)
    answers: Array = answer_blocks(rows_MxSxE, expert_M, last_X[-1], matrices, activation)
    answers = answers.reshape(most * size, -1).astype(jnp.float32) * weight_S[:, None]
    y = jnp.zeros((count + 1, x_NxE.shape[1]), jnp.float32).at[token_S].add(answers)
    return y[:count].astype(x_NxE.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def answer_blocks(
    rows_MxSxE: Float[Array, "blocks size hidden"],
    expert_M: Int[Array, " blocks"],
    used: Int[Array, ""],
    matrices: Matrices,
    activation: Activation,
) -> Float[Array, "blocks size hidden"]:
    """What each block's expert makes of it; zeros of blocks that are not `used`.

    What is between is computed again in the backward pass: kept, it would be the most of all that a layer keeps.
    """

    def answer_one(block: Array, answers: Array) -> Array:
        own = [matrix[expert_M[block]] for matrix in matrices]
        return answers.at[block].set(answer(rows_MxSxE[block], *own, activation=activation))

    return jax.lax.fori_loop(0, used, answer_one, jnp.zeros_like(rows_MxSxE))


def answer(rows_SxE: Array, gate_FxE: Array, up_FxE: Array, down_ExF: Array, activation: Activation) -> Array:
    """What one expert makes of its rows."""
    return (activation(rows_SxE @ gate_FxE.T) * (rows_SxE @ up_FxE.T)) @ down_ExF.T


def _answer_forward(rows, expert, used, matrices, activation):
    return answer_blocks(rows, expert, used, matrices, activation), (rows, expert, used, matrices)


def _answer_backward(activation, saved, g_MxSxE):
    rows, expert, used, matrices = saved

    def one(block, gradients):
        to_rows, to_matrices = gradients
        own = [matrix[expert[block]] for matrix in matrices]
        back = jax.vjp(functools.partial(answer, activation=activation), rows[block], *own)[1]
        row_gradient, *own_gradients = back(g_MxSxE[block])
        to_matrices = [
            total.at[expert[block]].add(gradient.astype(jnp.float32))
            for total, gradient in zip(to_matrices, own_gradients, strict=True)
        ]
        return to_rows.at[block].set(row_gradient), to_matrices

    start = jnp.zeros_like(rows), [jnp.zeros(matrix.shape, jnp.float32) for matrix in matrices]
    to_rows, to_matrices = jax.lax.fori_loop(0, used, one, start)
    cast = (total.astype(matrix.dtype) for total, matrix in zip(to_matrices, matrices, strict=True))
    return to_rows, None, None, tuple(cast)


answer_blocks.defvjp(_answer_forward, _answer_backward)


def by_sorting(
    x_NxE: Float[Array, "tokens hidden"],
    chosen_NxK: Int[Array, "tokens chosen"],
    weights_NxK: Float[Array, "tokens chosen"],
    matrices: Matrices,
    activation: Activation,
) -> Float[Array, "tokens hidden"]:
    """Tokens in order of their experts, each expert about its own only.

    Tokens of experts that are not here come last, in no expert's share; what a kernel writes there is anything.
    """
    order, here, sizes_X = by_expert(chosen_NxK, matrices[0].shape[0])
    tokens, here = order // chosen_NxK.shape[1], here[:, None]
    rows = jnp.where(here, x_NxE[tokens], 0)

    def product(rows: Array, weight: Array) -> Array:
        return jax.lax.ragged_dot(rows, weight.swapaxes(1, 2), sizes_X)

    gate, up, down = matrices
    answers = product(activation(product(rows, gate)) * product(rows, up), down).astype(jnp.float32)
    answers = jnp.where(here, answers * weights_NxK.reshape(-1)[order][:, None], 0)
    return jnp.zeros(x_NxE.shape, jnp.float32).at[tokens].add(answers).astype(x_NxE.dtype)


def load(
    chosen: Int[Array, "*tokens chosen"], number: int, counted: Float[Array, "*tokens"]
) -> Float[Array, " experts"]:
    """The share of the counted tokens that goes through each expert; `per_token` in all."""
    hits = jnp.sum(jax.nn.one_hot(chosen, number), axis=-2)
    return jnp.einsum("...x,...->x", hits, counted) / jnp.maximum(jnp.sum(counted), 1)


class RouterLosses(NamedTuple):
    """Of one layer, or summed over several.

    Attributes:
      balance: experts times the sum of each one's share of tokens times its mean share of scores: `per_token` where
        all are used alike, more where some are preferred (Switch, arXiv 2101.03961, equation 4, for several chosen).
      z: the mean square of the logits' log-sum-exp (ST-MoE, arXiv 2202.08906, equation 5).
    """

    balance: Float[Array, ""] | float = 0.0
    z: Float[Array, ""] | float = 0.0


def router_losses(routing: Routing, experts: Experts, counted: Float[Array, "*tokens"]) -> RouterLosses:
    """Both losses of one layer; tokens with 0 in `counted`, padding, have no say."""
    scores = jax.nn.softmax(routing.logits) if experts.scoring == "softmax" else jax.nn.sigmoid(routing.logits)
    scores = scores / jnp.sum(scores, axis=-1, keepdims=True)
    total = jnp.maximum(jnp.sum(counted), 1)
    mean = jnp.einsum("...x,...->x", scores, counted) / total
    balance = experts.number * jnp.sum(jax.lax.stop_gradient(load(routing.chosen, experts.number, counted)) * mean)
    z = jnp.sum(jnp.square(jax.nn.logsumexp(routing.logits, axis=-1)) * counted) / total
    return RouterLosses(balance, z)
