"""Routers of new layers: how evenly they use their experts, and, if wanted, fitted to what their neighbours decide.

A router that was predicted or copied reads a residual stream that it was not made for. The fitted one is linear, as any
is: the ridge regression, on a few thousand tokens, of the mean of both neighbours' logits on what the new router reads.
"""

from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lesa_jax.checkpoint.reader import Checkpoint, open_checkpoint
from lesa_jax.checkpoint.writer import Layout, rewrite
from lesa_jax.families.model import Experts, ModelConfig
from lesa_jax.growth.orders import Orders
from lesa_jax.growth.result import RouterResult
from lesa_jax.models.config import read_model
from lesa_jax.models.experts import Routing, load
from lesa_jax.models.parts import layer_tensor, part
from lesa_jax.models.streams import alike, embedded, read_layer, routed_layer, routings
from lesa_jax.models.views import view_of
from lesa_jax.planning.plan import Plan

RIDGE = 1e-3  # of the mean square of what routers read

Logits = Float[np.ndarray, "all_tokens experts"]


def check_routers(
    original: Checkpoint,
    folder: Path,
    plan: Plan,
    orders: Orders,
    tokens: Int[np.ndarray, "rows tokens"],
    layout: Layout | None = None,
) -> tuple[RouterResult, ...]:
    """Measures each new router on these tokens and, if it is to be fitted, replaces it in the grown checkpoint.

    Layers below a fitted router have theirs already when it is fitted.

    Args:
      original: the checkpoint before.
      folder, plan: of the grown one.
      orders: which expert below is which above (`growth.experts`); a new layer's numbers are those of the layer below.
      tokens: of a text.
      layout: of the grown checkpoint, into which fitted routers are written; None: they are only measured.
    """
    grown = open_checkpoint(folder)
    config = read_model(grown)
    experts = config.experts
    assert experts is not None
    taught = taught_logits(original, read_model(original), tokens, orders, plan) if layout else {}
    x, context = embedded(grown, config, tokens)
    results, fitted = [], {}
    for position, slot in enumerate(plan.slots):
        layer, seen = read_layer(grown, config, position), view_of(config, position)
        after, read, routing = routed_layer(layer, x, context, seen, alike(config, position))
        if slot.new and routing is not None:
            before = evenness(routing, experts)
            if layout is not None:
                router = ridge(np.asarray(read).reshape(-1, read.shape[-1]), told(taught[slot.layer], experts))
                fitted[layer_tensor(config, position, f"{experts.names.router}.weight")] = router
                layer = with_router(layer, experts, router)
                after, _, routing = routed_layer(layer, x, context, seen, alike(config, position))
                assert routing is not None
            results.append(RouterResult(position, before, evenness(routing, experts)))
        x = after
    if layout is not None:  # only now: a checkpoint must not change while it is read
        for name, router in fitted.items():
            rewrite(folder, layout, name, lambda _, router=router: router)
    return tuple(results)


def taught_logits(
    original: Checkpoint, config: ModelConfig, tokens: Int[np.ndarray, "rows tokens"], orders: Orders, plan: Plan
) -> Mapping[int, Logits]:
    """For each gap with new layers what their routers are to say: the mean of what both neighbours' say of a token.

    Numbered as the experts below; the layer below alone where the one above has no experts.
    """
    wanted = {slot.layer for slot in plan.slots if slot.new}
    taught: dict[int, Logits] = {}
    for layer, routing in routings(original, config, tokens):
        logits = np.asarray(routing.logits).reshape(-1, routing.logits.shape[-1])
        if layer - 1 in taught:
            above = logits[:, orders[layer]]  # by role
            taught[layer - 1] = (taught[layer - 1] + above[:, np.argsort(orders[layer - 1])]) / 2
        if layer in wanted:
            taught[layer] = logits
    return taught


def told(logits: Logits, experts: Experts) -> Logits:
    """Logits without what a softmax does not see: that which a token's have in common."""
    return logits - logits.mean(axis=1, keepdims=True) if experts.scoring == "softmax" else logits


def ridge(read: Float[np.ndarray, "all_tokens hidden"], wanted: Logits) -> Float[np.ndarray, "experts hidden"]:
    """The router whose logits are nearest to those that are wanted."""
    x, y = read.astype(np.float64), wanted.astype(np.float64)
    square = x.T @ x
    square += RIDGE * np.trace(square) / len(square) * np.eye(len(square))
    return np.linalg.solve(square, x.T @ y).T


def with_router(layer: dict, experts: Experts, router: np.ndarray) -> dict:
    """The layer with another router."""
    part(layer, experts.names.router)["weight"] = jnp.asarray(router, jnp.float32)
    return layer


def evenness(routing: Routing, experts: Experts) -> float:
    """The entropy of the experts' shares of tokens, as a share of the largest: 1 if all are used alike, 0 if few."""
    shares: Array = load(routing.chosen, experts.number, jnp.ones(routing.chosen.shape[:-1])) / experts.per_token
    entropy = -np.sum([share * np.log(share) for share in np.asarray(shares, np.float64) if share > 0])
    return float(entropy / np.log(experts.number)) if experts.number > 1 else 1.0
