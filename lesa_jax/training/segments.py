"""A deep model as a few scans: runs of layers that repeat a short pattern of trained and frozen weights.

Training the new layers of a grown model means a frozen prefix, then frozen and new layers in turn. `lax.scan` needs
equal trees in every iteration, so the layers are grouped by what is trained in them and cut into segments, each a
pattern of such groups repeated: `0-7 +7 8 +8 9 ... +14 15` is (old) x 8 and then (new, old) x 8. A scan has a backward
pass as a whole or not at all, so no segment reaches over the end of the prefix: `0 1 +1 2 3 +3 4 5` is (old) x 2, then
(new, old, old) x 2. Weights are stored by segment from the start: a stack that is cut up in every step would be copied
in every step.

Two trees of the same skeleton hold a model in training, `trained` and `frozen`; each leaf is in one of them. Layers lie
under `tree["segments"][segment][place]`, numbers as strings, stacked; the rest as in the checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from lesa_jax.checkpoint.names import Tree
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.blocked_attention import SAVED
from lesa_jax.models.decoder import Context, routed_block
from lesa_jax.models.experts import RouterLosses, router_losses
from lesa_jax.models.views import Arrays, View, view, views
from lesa_jax.parallel.mesh import by_rows, mesh_of
from lesa_jax.training.gathering import Axes, gathered, shared_weights
from lesa_jax.training.narrow import Wide, read
from lesa_jax.training.settings import Remat

SEGMENTS = "segments"  # where the layers lie in a tree in training
ENCODER = "encoder"  # where in there those of an encoder-decoder's encoder lie
LONGEST_PATTERN = 8


@dataclass(frozen=True)
class Segment:
    """Layers `start` to `start + repeats * width - 1`: `width` layers, `repeats` times."""

    start: int
    width: int
    repeats: int

    def layers(self, place: int) -> tuple[int, ...]:
        """The layers at one place of the pattern, in order."""
        return tuple(range(self.start + place, self.start + self.width * self.repeats, self.width))


def find_segments(groups: Sequence[object], prefix: int = 0) -> tuple[Segment, ...]:
    """Cuts a sequence of layers into repeated patterns, taking the pattern that reaches furthest at each point.

    Args:
      groups: for every layer, what it has in common with layers that may share its stack.
      prefix: layers at the bottom that have no backward pass; they share no segment with those above.
    """
    segments = []
    start = 0
    while start < len(groups):
        end = prefix if start < prefix else len(groups)
        segments.append(_furthest(groups[:end], start))
        start += segments[-1].repeats * segments[-1].width
    return tuple(segments)


def _furthest(groups: Sequence[object], start: int) -> Segment:
    """The pattern that reaches furthest from `start` on; of several the shortest."""
    best = Segment(start, 1, 1)
    for width in range(1, min(LONGEST_PATTERN, len(groups) - start) + 1):
        pattern = groups[start : start + width]
        repeats = 1
        while groups[start + repeats * width : start + (repeats + 1) * width] == pattern:
            repeats += 1
        # A pattern that does not repeat is no pattern: its layers would be compiled one by one.
        if (repeats > 1 or width == 1) and repeats * width > best.repeats * best.width:
            best = Segment(start, width, repeats)
    return best


def merge(trained: Tree, frozen: Tree) -> Tree:
    """One tree of both trees' leaves."""
    return unflatten_dict(flatten_dict(trained) | flatten_dict(frozen))


def run_segments(
    params: Tree,
    x_BxTxE: Float[Array, "batch tokens hidden"],
    segments: tuple[Segment, ...],
    context: Any,
    config: ModelConfig,
    remat: Remat = "none",
    shares: Float[Array, " layers"] | None = None,
    layer_of: Callable[..., Any] | None = None,
) -> tuple[Float[Array, "batch tokens hidden"], RouterLosses]:
    """All layers, one scan for each segment; and what their routers are to be held to, summed over the layers.

    Args:
      params: merged trees; layers under `params["segments"][str(number)][str(place)]`.
      x_BxTxE: embeddings.
      segments: which layers those are.
      context: what every layer sees beside the residual stream.
      config: of the model; its windows are looked up by layer.
      remat: what the backward pass computes again: nothing, a block but for its matrix products and its attention, or
        the whole block.
      shares: how much of what each layer does to the stream counts (`mask.Mask`): x + share (layer(x) - x).
      layer_of: what one layer computes, by default `block_and_losses`; or another function of the same arguments.
    """
    mesh, layer_of = mesh_of(x_BxTxE), layer_of or block_and_losses
    losses = RouterLosses(jnp.zeros(()), jnp.zeros(())) if any(config.sparse) else RouterLosses()
    for number, segment in enumerate(segments):
        shared, arrays = zip(*(views(config, segment.layers(p)) for p in range(segment.width)), strict=True)
        # Without remat a weight that is whole would be kept for the backward pass, of every layer.
        gathers = mesh is not None and remat != "none"
        runs = [
            rematerialised(
                on_weights(layer_of, shared_weights(config, layer) if gathers else {}), remat, segment.repeats > 1
            )
            for layer in range(segment.start, segment.start + segment.width)
        ]
        # Of a place of the pattern all layers are of one size.
        sized = [config.like(segment.start + place) for place in range(segment.width)]
        places = tuple(zip(runs, shared, sized, strict=True))
        counted = [None if shares is None else shares[np.array(segment.layers(p))] for p in range(segment.width)]

        def step(carry: Any, scanned: tuple[Tree, tuple[Arrays, ...], list[Array | None]], places=places) -> Any:
            layers, arrays, counted = scanned
            x, losses = carry
            for place, ((run, common, like), own, share) in enumerate(zip(places, arrays, counted, strict=True)):
                after, added = run(layers[str(place)], x, context, common, own, like)
                x = by_rows(rounded(after) if share is None else mixed(x, rounded(after), share))
                losses = losses if added is None else jax.tree.map(jnp.add, losses, added)
            return (x, losses), None

        stacks = params[SEGMENTS][str(number)]
        (x_BxTxE, losses), _ = jax.lax.scan(step, (x_BxTxE, losses), (stacks, arrays, counted))
    return x_BxTxE, losses


def on_weights(layer_of: Callable[..., Any], shared: Mapping[tuple[str, ...], Axes]) -> Callable[..., Any]:
    """The same function of a layer, for weights that may be `Wide` and, where `shared`, spread over devices."""

    def of_layer(layer: Tree, x: Array, *rest: Any) -> Any:
        layer = jax.tree.map(read, layer, is_leaf=lambda leaf: isinstance(leaf, Wide))
        return layer_of(gathered(layer, shared, x.dtype), x, *rest)

    return of_layer


def block_and_losses(
    layer: Tree, x_BxTxE: Float[Array, "batch tokens hidden"], context: Context, seen: View, config: ModelConfig
) -> tuple[Float[Array, "batch tokens hidden"], RouterLosses | None]:
    """A layer, and its router's losses if it has one."""
    x_BxTxE, routing = routed_block(layer, x_BxTxE, context, seen, config)
    if routing is None or config.experts is None:
        return x_BxTxE, None
    documents = jnp.ones(x_BxTxE.shape[:2]) if context.documents is None else context.documents != 0
    return x_BxTxE, router_losses(routing, config.experts, documents.astype(jnp.float32))


def rounded(x_BxTxE: Float[Array, "batch tokens hidden"]) -> Float[Array, "batch tokens hidden"]:
    """The stream in its own dtype between layers: in half precision XLA may keep it wider, here and not there."""
    kept = jnp.finfo(x_BxTxE.dtype)
    return jax.lax.reduce_precision(x_BxTxE, kept.nexp, kept.nmant)


def mixed(
    before: Float[Array, "batch tokens hidden"], after: Float[Array, "batch tokens hidden"], share: Float[Array, ""]
) -> Float[Array, "batch tokens hidden"]:
    """before + share (after - before), summed in float32; at a share of 1 it is `after`, bit for bit."""
    wide = before.astype(jnp.float32)
    return jnp.where(share == 1, after, (wide + share * (after.astype(jnp.float32) - wide)).astype(after.dtype))


def rematerialised(function: Callable[..., Any], remat: Remat, loops: bool) -> Callable[..., Any]:
    """A block of a layer's common and own views, under a rule for what its backward pass keeps; see `run_segments`.

    `loops` says that a loop runs it. Else XLA would find that the backward pass computes what the forward pass has,
    and keep all of that.
    """
    match remat:
        case "none":
            return lambda layer, x, context, common, own, config: function(layer, x, context, view(common, own), config)
        case "block":
            policies = jax.checkpoint_policies
            policy = policies.save_from_both_policies(
                policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(SAVED)
            )
        case "full":
            policy = None
    # What layers have in common, and the config, are properties of the program.
    return lambda layer, x, context, common, own, config: jax.checkpoint(
        lambda layer, x, context, own: function(layer, x, context, view(common, own), config),
        policy=policy,
        prevent_cse=not loops,
    )(layer, x, context, own)
