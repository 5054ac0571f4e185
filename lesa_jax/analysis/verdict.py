"""What an analysis says, in sentences."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lesa_jax.analysis.continuity import spearman
from lesa_jax.analysis.depth_worth import DEPTHS, worth
from lesa_jax.analysis.result import Analysis

MEASURES = {
    "last_divergence": "the prediction stays near the model's (logit lens)",
    "overlap": "its likeliest tokens begin to be the model's",
    "cosine": "layers turn from erasing to amplifying",
    "depth_score": "the mean layer lies whose absence changes later ones",
    "output_score": "the mean layer lies whose absence changes the prediction",
}
SHOWN = 5  # layers that are named
MOST = 3  # originals that are named


def verdict(found: Analysis) -> list[str]:
    """One sentence for each thing that can be said."""
    return [
        *depths(found),
        *turns(found),
        *missed(found),
        *new_layers(found),
        *changes(found),
        *matrices(found),
        *network(found),
        *recommendation(found),
        *law(found),
    ]


def depths(found: Analysis) -> list[str]:
    said = [
        f"{words} at layer {value:.3g}"
        for name, words in MEASURES.items()
        if (value := found.effective_depth[name]) is not None
    ]
    return [f"Of {found.count} layers (0 to {found.count - 1}): {'; '.join(said)}."]


def turns(found: Analysis) -> list[str]:
    """Which layers turn the stream least, alone and together."""
    angles = degrees(found)
    still = np.argsort(angles, kind="stable")[:SHOWN]
    said = [
        f"Layers that turn the residual stream least: {named(still, angles, ' degrees')}; "
        f"the median layer turns it by {np.median(angles):.3g} degrees."
    ]
    if (block := found.nearly_one) is not None:
        usual = 180 * float(np.median(found.measured.blocks[0]))
        said.append(
            f"Layers {block.first} to {block.last} are nearly one: together they turn the stream of the last token by "
            f"{180 * block.distance:.3g} degrees, the median layer alone by {usual:.3g}."
        )
    return said


def missed(found: Analysis) -> list[str]:
    importance = found.measured.importance
    return [
        f"Missed least, by what the loss gains without them: {named(found.ranking[:SHOWN], importance, ' nats')}; "
        f"missed most: {named(found.ranking[::-1][:SHOWN], importance, ' nats')}."
    ]


def new_layers(found: Analysis) -> list[str]:
    """How much of the new layers is used."""
    if not found.new:
        return []
    new, old = [*found.new], [*found.old]
    angles, gains = degrees(found), found.measured.importance[new]
    added, ways = np.array([layer.contribution for layer in found.measured.layers]), np.array(found.ways)
    return [
        f"The {len(new)} new layers turn the stream by {np.mean(angles[new]):.3g} degrees on average, and without one "
        f"of them the loss gains {np.mean(gains):.3g} nats on average, {np.max(gains):.3g} at most.",
        f"A new layer adds {np.mean(added[new]):.3g} of the stream's length, an original {np.mean(added[old]):.3g}; "
        f"being {len(new) / found.count:.0%} of the layers, the new ones make {np.sum(ways[new]):.1%} of the way from "
        f"the embedding to the end.",
    ]


def changes(found: Analysis) -> list[str]:
    """What became of the originals' roles."""
    if found.base is None:
        return []
    before, now = found.base.measured.importance, found.measured.importance[[*found.old]]
    most = np.argsort(-np.abs(now - before), kind="stable")[:MOST]
    moved = ", ".join(f"{layer} ({before[layer]:.3g} to {now[layer]:.3g} nats)" for layer in most)
    turned, turn = degrees(found)[[*found.old]], degrees(found.base)
    return [
        f"Against base, the originals turn the stream by {np.mean(turned):.3g} degrees on average, before by "
        f"{np.mean(turn):.3g}; their order of importance correlates by {rank_correlation(before, now):.2f} with what "
        f"it was, and it changed most for layers {moved} of base."
    ]


def matrices(found: Analysis) -> list[str]:
    """Which kinds of weight are continuous, and what neighbours tell of a layer."""
    asked = [kind for kind in found.weights if kind.continuity is not None]
    if not asked:
        return []
    kinds = [
        f"{kind.kind} ({kind.continuity.correlation:.2f})" for kind in found.continuous if kind.continuity is not None
    ]
    where = (
        f"so a learned prediction has something to learn from in {'it' if len(kinds) == 1 else 'them'} alone"
        if kinds
        else "so a learned prediction has nothing of this kind to learn from"
    )
    errors = [error for kind in found.weights for error in kind.neighbour_error if error is not None]
    told = f", and the best multiple of its neighbours tells {1 - np.mean(errors):.2%} of a matrix" if errors else ""
    return [
        f"Kinds of weight whose leading coefficients follow depth (rank correlation beyond shuffled layers'): "
        f"{', '.join(kinds) or 'none'} of {len(asked)}, {where}{told}."
    ]


def network(found: Analysis) -> list[str]:
    """What LESA's own network tells of layers that it was not taught."""
    asked = {kind.kind: kind.prediction for kind in found.weights if kind.prediction is not None}
    if not asked:
        return []
    best = min(asked, key=lambda kind: asked[kind].scaled_error)
    error, scaled = (np.mean([getattr(own, name) for own in asked.values()]) for name in ("error", "scaled_error"))
    layers = ", ".join(map(str, asked[best].held_out))
    return [
        f"LESA's own network, taught without layers {layers}, predicts them with {error:.2f} times the squared error "
        f"of predicting zero, {scaled:.3f} times at the loudness that suits it best (means of {len(asked)} kinds). It "
        f"tells {1 - scaled:.2%} of a layer that it has not seen, most of {best} ({1 - asked[best].scaled_error:.2%})."
    ]


def recommendation(found: Analysis) -> list[str]:
    if found.recommended is None:
        return []
    gaps = ",".join(map(str, found.recommended.gaps))
    return [
        f"Half as many layers again would go to gaps {gaps} by ADEPT's rule (next to those that are missed least): "
        f"lesa expand --plan plan.json, or --gaps {gaps}. On the one model where that was tried, layers on top, or "
        "spread evenly, learned more; lesa compare tells of yours."
    ]


def law(found: Analysis) -> list[str]:
    """What half as many layers again could be worth."""
    deeper = found.count + found.count // 2
    gain = worth(found.count, deeper)
    if gain is None:
        return [f"The law of depth says nothing of {deeper} layers here: its runs have {DEPTHS[0]} to {DEPTHS[1]}."]
    return [
        f"By the law of depth on Chinchilla's runs a model of {deeper} layers trained from nothing has a loss lower by "
        f"{gain[0]:.3f} +- {gain[1]:.3f} nats a token than one of {found.count}: so much can growing be worth if "
        "training gets as far."
    ]


def degrees(found: Analysis) -> Float[np.ndarray, " layers"]:
    return np.degrees([layer.angle for layer in found.measured.layers])


def rank_correlation(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Spearman's, of values without ties; 1 of a single pair."""
    ranks = np.argsort(np.argsort(b, kind="stable"), kind="stable")
    return spearman(ranks[np.argsort(a, kind="stable")]) if len(a) > 1 else 1.0


def named(layers: np.ndarray | Sequence[int], values: Float[np.ndarray, " layers"], unit: str) -> str:
    """`3 (0.5 degrees), 7 (0.9 degrees)`."""
    return ", ".join(f"{layer} ({values[layer]:.3g}{unit})" for layer in layers)
