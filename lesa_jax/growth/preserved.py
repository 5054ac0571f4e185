"""Whether a grown model computes what the original computes: both run on a few tokens, and the logits must be equal.

Asked where a method promises it, and a forward pass exists. Both models are run from their files, a layer at a time, so
that memory follows one layer; it costs reading both once. New layers that write nothing add exactly zero, and all
others run the same program on the same numbers: the logits are equal to the bit, or something is wrong.
"""

from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, Float, Int

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import Checkpoint, open_checkpoint, read
from lesa_jax.families.model import ModelConfig
from lesa_jax.models.config import read_model
from lesa_jax.models.decoder import final_norm
from lesa_jax.models.losses import Head, logits_of
from lesa_jax.models.parts import output_tensor
from lesa_jax.models.shapes import check_tensors, outside_layers
from lesa_jax.models.streams import alike, decoder_states, encoder_states, hidden_states, wide
from lesa_jax.planning.plan import Plan

TOKENS = 32
ROWS = 8192  # of the head that are in memory at a time


def check_preserved(original: Checkpoint, folder: Path, plan: Plan) -> int:
    """Compares the logits of the original and of the grown checkpoint in `folder`.

    Returns:
      On how many tokens.

    Raises:
      InputError: they differ, or the grown config.json or its tensors would make them differ on other tokens.
    """
    grown = open_checkpoint(folder)
    before, after = read_model(original), read_model(grown)
    old = [(position, plan.slots[position].layer) for position in plan.old_layers]
    if any(alike(after, position) != alike(before, layer) for position, layer in old):
        raise changed("the grown config.json describes another kind of model")
    if tuple(after.windows[position] for position in plan.old_layers) != before.windows:
        raise changed("the grown config.json gives old layers other windows of attention")
    if tuple(after.rotations[position] for position in plan.old_layers) != before.rotations:
        raise changed("the grown config.json gives old layers other rotations")
    if tuple(after.sparse[position] for position in plan.old_layers if after.sparse) != before.sparse:
        raise changed("the grown config.json has experts in other layers")
    if tuple(after.norm_scales[position] for position in plan.old_layers if after.norm_scales) != before.norm_scales:
        raise changed("the grown config.json scales what old layers read otherwise")
    check_tensors(grown, after)
    tokens = probe(before)
    if plan.encoder is None:
        expected = hidden_states(original, before, tokens)
        # In new layers every token goes through every expert: one that few tokens would not choose must be silent, too.
        found = hidden_states(grown, after, tokens, plan.new_layers)
    else:
        models = (original, before), (grown, after)
        expected, found = (encoder_states(checkpoint, config, tokens) for checkpoint, config in models)
        source = follow(plan.encoder, expected, found, "encoder ")
        expected, found = (decoder_states(checkpoint, config, tokens, source) for checkpoint, config in models)
    state = follow(plan, expected, found)
    for old, new in zip(logits(original, before, state), logits(grown, after, state), strict=True):
        same(old, new, "its logits differ")
    return tokens.shape[1]


def follow(plan: Plan, expected: Iterator[Array], found: Iterator[Array], stack: str = "") -> Array:
    """The residual stream above the last layer, after both models were seen to have the same on the way there."""
    state = next(expected)
    same(state, next(found), f"the {stack}embedding is another")
    for position, (slot, new_state) in enumerate(zip(plan.slots, found, strict=True)):
        if not slot.new:
            state = next(expected)
        what = "new {}layer {} is not silent" if slot.new else "{}layer {} is not the original's layer {}"
        same(state, new_state, what.format(stack, position, slot.layer))
    return state


def changed(what: str) -> InputError:
    return InputError(
        f"the grown model would not compute what the original computes: {what}; nothing was written, please report it"
    )


def same(expected: Array, found: Array, otherwise: str) -> None:
    if not jnp.isfinite(expected).all():
        raise InputError("the original's numbers overflow on a few tokens, so it cannot be compared; it is damaged")
    if not jnp.array_equal(expected, found):
        raise changed(f"{otherwise}, numbers differ by up to {jnp.abs(expected - found).max():.2g}")


def probe(config: ModelConfig) -> Int[np.ndarray, "batch tokens"]:
    """Tokens from all over the vocabulary, the same for every model of its size."""
    count = min(TOKENS, config.max_position_embeddings)
    return np.random.default_rng(0).integers(0, config.vocab_size, (1, count))


def logits(
    checkpoint: Checkpoint, config: ModelConfig, x: Float[Array, "batch tokens hidden"]
) -> Iterator[Float[Array, "batch tokens rows"]]:
    """The logits, some rows of the head at a time."""
    outside = {name: wide(read(checkpoint, name)) for name in outside_layers(config)}
    hidden = final_norm(unflatten_dict(outside, sep="."), x, config)
    for start in range(0, config.vocab_size, ROWS):
        count = min(ROWS, config.vocab_size - start)
        bias = wide(read(checkpoint, f"{config.names.head}.bias", start, count)) if config.head_bias else None
        rows = wide(read(checkpoint, output_tensor(config), start, count))
        yield logits_of(hidden, Head(rows, bias, config.logit_cap))
