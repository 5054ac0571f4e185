"""Patterns of layers: a window in all but every fourth, a rotation in three of four.

config.json of a grown model says layer by layer which kind each is, and transformers follows it. Some programs go by a
layer's number instead (llama.cpp, by the number or by a pattern in its file): to them an original must keep its place
in the pattern.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lesa_jax.families.entries import words
from lesa_jax.families.table import description

# Gemma 2 and 3 of so many layers have another scale of attention in llama.cpp: that of the models with 27 billion.
LLAMA_CPP_SCALES = {"gemma2": 46, "gemma3_text": 62}
T5 = ("t5", "mt5", "umt5")


def layer_period(config: Mapping[str, Any]) -> int:
    """After how many layers their kinds repeat: 1 where all are alike, the model's depth where nothing repeats."""
    kinds = layer_kinds(config)
    repeats = (n for n in range(1, len(kinds)) if all(a == b for a, b in zip(kinds, kinds[n:], strict=False)))
    return next(repeats, max(1, len(kinds)))


def layer_kinds(config: Mapping[str, Any]) -> Sequence[Any]:
    """Of each layer what `layer_types` and the like say; empty where nobody knows."""
    model = description(config)
    if model is None:
        return words(config, "layer_types") or ()
    return tuple(zip(model.windows, model.rotations, strict=True))


def traps(
    before: Mapping[str, Any], old_layers: Sequence[int], layers: int, encoder_layers: int | None = None
) -> tuple[str, ...]:
    """What programs that go by the number of layers would get wrong in a grown model, in words.

    Args:
      before: the original's config.json.
      old_layers: where the originals are in the grown model.
      layers: how many it has, of an encoder-decoder in its decoder.
      encoder_layers: and in its encoder.
    """
    period, found = layer_period(before), []
    repeats = 2 * period <= len(old_layers)
    if repeats and any(position % period != layer % period for layer, position in enumerate(old_layers)):
        found.append(
            f"its kinds of layers repeat after {period}, and old layers have lost their places: programs that go by a "
            "layer's number instead of layer_types (llama.cpp) would give them other windows; --placement periods "
            "keeps them"
        )
    special = LLAMA_CPP_SCALES.get(str(before.get("model_type")))
    if special is not None and special in (len(old_layers), layers):
        found.append(
            f"llama.cpp takes a model of {special} layers, and no other, for the one with 27 billion parameters, and "
            "scales its attention otherwise: convert the grown one with care"
        )
    if encoder_layers is not None and layers > encoder_layers and before.get("model_type") in T5:
        found.append(
            f"transformers' cache for a T5 has a place for as many layers as the encoder has, {encoder_layers}, and "
            "its decoder is deeper: generate with use_cache=False, or let the encoder grow, too"
        )
    return tuple(found)
