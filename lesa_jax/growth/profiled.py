"""New layers of sizes of their own, where those of the old ones follow a profile over depth (`--keep-profile`)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from lesa_jax.base.errors import InputError
from lesa_jax.families.entries import integer
from lesa_jax.families.model import ModelConfig, Sizes
from lesa_jax.families.openelm import round_openelm
from lesa_jax.growth.recipe import Part
from lesa_jax.growth.resizing import resizes
from lesa_jax.planning.plan import Plan


def keep_profile(
    model: ModelConfig, plan: Plan, parts: Sequence[Part], config: Mapping[str, Any]
) -> tuple[list[Part], dict[str, Any]]:
    """The parts and config.json of a grown model whose new layers have sizes between those of the old ones.

    Args:
      model: the original's.
      plan: where each new layer names the one that it copies.
      parts, config: of the grown model whose new layers have the sizes of what they copy.

    Raises:
      InputError: layers that are all alike, new ones that are no copies.
    """
    if any(part.made == "computed" for part in parts):
        raise InputError(
            "--keep-profile: new layers of other sizes are made of copies; choose such a method, as llama_pro or "
            "duplicate"
        )
    sizes = grown_sizes(config, model, plan)
    tables = {
        position: resizes(model, slot.layer, sizes[position]) for position, slot in enumerate(plan.slots) if slot.new
    }
    layers = f"{model.names.layers}."
    found = []
    for part in parts:
        if part.new and part.name.startswith(layers):
            position, _, inside = part.name.removeprefix(layers).partition(".")
            found.append(replace(part, resize=tables[int(position)].get(inside)))
        else:
            found.append(part)
    return found, resized_config(config, model, sizes)


def grown_sizes(config: Mapping[str, Any], model: ModelConfig, plan: Plan) -> tuple[Sizes, ...]:
    """The sizes of each layer of the grown model: an old one keeps its own, a new one has what lies between those of
    the old ones around it, as far between as its place is, in the steps in which a config can say them."""
    if not model.sizes:
        raise InputError("--keep-profile: is for layers that differ in size; here all are alike, so leave it out")
    queries = model.num_heads // model.num_kv_heads
    old = [model.sizes_of(layer) for layer in range(model.num_layers)]
    between = partial(np.interp, range(plan.layers), plan.old_layers)
    keys = np.rint(between([sizes.num_kv_heads for sizes in old])).astype(int)
    widths = between([sizes.intermediate_size for sizes in old])
    divisor = integer(config, "ffn_dim_divisor", 256)

    def new(position: int) -> Sizes:
        own = int(keys[position])
        return Sizes(own * queries, own, round_openelm(float(widths[position]), divisor))

    return tuple(new(position) if slot.new else old[slot.layer] for position, slot in enumerate(plan.slots))


def resized_config(config: Mapping[str, Any], model: ModelConfig, sizes: Sequence[Sizes]) -> dict[str, Any]:
    """config.json of a grown model with layers of these sizes."""
    entries: dict[str, Any] = {
        "num_query_heads": [own.num_heads for own in sizes],
        "num_kv_heads": [own.num_kv_heads for own in sizes],
        "ffn_multipliers": [own.intermediate_size / model.hidden_size for own in sizes],
    }
    if isinstance(config.get("qkv_multipliers"), list):
        entries["qkv_multipliers"] = [own.num_heads * model.head_dim / model.hidden_size for own in sizes]
    return {**config, **entries}
