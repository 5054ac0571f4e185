"""A Llama's layers with their neurons and heads numbered alike: the same function, each layer told as the one below it.

What a layer computes does not say in which order its neurons stand, which sign they have, which head is which, in which
basis a head's values are, and by which angle the pairs that its rotation turns are turned before. So two layers that
do the same may look unrelated. `align` chooses, layer by layer from the bottom, the order, signs, bases and angles that
bring a layer nearest to the one below it:

  neurons  the assignment (Hungarian) of gate, up and down together; up and down may change their sign together
  heads    the assignment of key-value heads by keys and values, then of the query heads of each by queries and outputs
  values   the orthogonal matrix (Procrustes) of each key-value head, on values and outputs together
  keys     the angle of each pair that the rotary embedding turns, on keys and queries together
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from lesa_jax.families.model import ModelConfig

Layer = dict[str, np.ndarray]  # the seven matrices of one layer, [out, in]
Heads = Float[np.ndarray, "groups heads width hidden"]

ATTENTION = {name: f"self_attn.{name}_proj" for name in "qkvo"}
GATE, UP, DOWN = (f"mlp.{name}_proj" for name in ("gate", "up", "down"))


def align(kinds: Mapping[str, Any], config: ModelConfig) -> dict[str, Float[np.ndarray, "layers out in"]]:
    """Stacked matrices of a Llama whose every layer is numbered like the one below it; layer 0 stays as it is."""
    arrays = {kind: np.asarray(w, np.float32) for kind, w in kinds.items()}
    layers = [{kind: w[0] for kind, w in arrays.items()}]
    for number in range(1, config.num_layers):
        layer = {kind: w[number] for kind, w in arrays.items()}
        layers.append(layer | align_neurons(layers[-1], layer) | align_heads(layers[-1], layer, config))
    return {kind: np.stack([layer[kind] for layer in layers]) for kind in arrays}


def align_neurons(below: Layer, layer: Layer) -> Layer:
    """The feed-forward matrices of `layer` with its neurons in the places of their like in `below`."""

    def products(of: Layer) -> tuple[np.ndarray, np.ndarray]:
        """[neurons, hidden] of the gate, and of up and down side by side, each matrix of length 1."""
        gate, up, down = (w / np.linalg.norm(w) for w in (of[GATE], of[UP], of[DOWN]))
        return gate, np.concatenate([up, down.T], axis=1)

    (gate, rest), (own_gate, own_rest) = products(below), products(layer)
    signed = rest @ own_rest.T
    places, order = linear_sum_assignment(gate @ own_gate.T + np.abs(signed), maximize=True)
    sign = np.where(signed[places, order] < 0, -1, 1).astype(np.float32)
    return {
        GATE: layer[GATE][order],
        UP: layer[UP][order] * sign[:, None],
        DOWN: layer[DOWN][:, order] * sign[None],
    }


def align_heads(below: Layer, layer: Layer, config: ModelConfig) -> Layer:
    """The attention matrices of `layer` with its heads in the places of their like in `below`, turned like them."""
    there, here = in_heads(below, config), in_heads(layer, config)
    score = np.array([[nearness(there, i, here, j) for j in range(len(here["k"]))] for i in range(len(there["k"]))])
    groups = linear_sum_assignment(score, maximize=True)[1]
    here = {name: heads[groups] for name, heads in here.items()}
    for group in range(len(groups)):
        own = {name: heads[group] for name, heads in here.items()}
        nearest = {name: heads[group] for name, heads in there.items()}
        turned = turn(own["q"], angles(nearest["k"], own["k"]))
        like = np.einsum("awd,bwd->ab", nearest["q"], turned) / size(there["q"], here["q"])
        like += np.array([[nuclear(a, b) for b in own["o"]] for a in nearest["o"]]) / size(there["o"], here["o"])
        order = linear_sum_assignment(like, maximize=True)[1]
        own |= {"q": own["q"][order], "o": own["o"][order]}
        for name, heads in turned_alike(nearest, own).items():
            here[name][group] = heads
    return in_matrices(here)


def turned_alike(nearest: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One group whose pairs of keys and queries, and whose values and outputs, are turned towards those of another."""
    by = angles(np.concatenate([nearest["k"], nearest["q"]]), np.concatenate([own["k"], own["q"]]))
    product = sum(a @ b.T for name in "vo" for a, b in zip(nearest[name], own[name], strict=True))
    u, _, v = np.linalg.svd(product)
    rotation = (u @ v).astype(np.float32)
    turned = {name: turn(own[name], by) for name in "qk"}
    return turned | {name: rotation @ own[name] for name in "vo"}


def in_heads(layer: Layer, config: ModelConfig) -> dict[str, Heads]:
    """q and o by key-value head and by query head of it, k and v by key-value head; rows are a head's numbers."""
    groups, width = config.num_kv_heads, config.head_dim
    heads = {name: layer[kind].T if name == "o" else layer[kind] for name, kind in ATTENTION.items()}
    return {name: np.array(w).reshape(groups, -1, width, w.shape[1]) for name, w in heads.items()}


def in_matrices(heads: Mapping[str, Heads]) -> Layer:
    """`in_heads` undone."""
    flat = {name: w.reshape(-1, w.shape[-1]) for name, w in heads.items()}
    return {kind: flat[name].T if name == "o" else flat[name] for name, kind in ATTENTION.items()}


def nearness(there: Mapping[str, Heads], i: int, here: Mapping[str, Heads], j: int) -> float:
    """How near a key-value head comes to another once it is turned towards it, by keys and values."""
    keys = np.abs(correlations(there["k"][i], here["k"][j])).sum() / size(there["k"], here["k"])
    return float(keys + nuclear(there["v"][i, 0], here["v"][j, 0]) / size(there["v"], here["v"]))


def size(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a) * np.linalg.norm(b))


def nuclear(a: Float[np.ndarray, "width hidden"], b: Float[np.ndarray, "width hidden"]) -> float:
    """The largest product of a with b turned by an orthogonal matrix."""
    return float(np.linalg.svd(a @ b.T, compute_uv=False).sum())


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the pairs of a head's numbers that the rotary embedding turns, i and i + width / 2, as complex numbers."""
    a, b = (x.reshape(-1, 2, x.shape[-2] // 2, x.shape[-1]) for x in (a, b))
    (a0, a1), (b0, b1) = (np.moveaxis(x, 1, 0) for x in (a, b))
    together = np.einsum("hpd,hpd->p", a0, b0) + np.einsum("hpd,hpd->p", a1, b1)
    across = np.einsum("hpd,hpd->p", a1, b0) - np.einsum("hpd,hpd->p", a0, b1)
    return together + 1j * across


def angles(a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, " pairs"]:
    """By how much each pair of b is to be turned to come nearest to that of a."""
    return np.angle(correlations(a, b)).astype(np.float32)


def turn(heads: np.ndarray, by: Float[np.ndarray, " pairs"]) -> np.ndarray:
    """Each pair turned by its angle; queries and keys turned alike attend as before."""
    pairs = heads.reshape(*heads.shape[:-2], 2, heads.shape[-2] // 2, heads.shape[-1])
    x, y = pairs[..., 0, :, :], pairs[..., 1, :, :]
    cos, sin = np.cos(by)[:, None], np.sin(by)[:, None]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-3).reshape(heads.shape)
