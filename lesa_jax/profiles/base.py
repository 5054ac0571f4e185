"""A profile laid over a model that is described already: its depth, width and vocabulary, other sizes of its layers."""

from collections.abc import Mapping
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families.entries import integer
from lesa_jax.families.model import ModelConfig
from lesa_jax.families.table import find_family
from lesa_jax.profiles.budget import fit
from lesa_jax.profiles.config import to_config
from lesa_jax.profiles.named import PROFILES, layer_sizes
from lesa_jax.profiles.sizes import Shape

CARRIED = ("bos_token_id", "eos_token_id", "pad_token_id", "initializer_range", "dtype", "torch_dtype")


def profiled(base: Mapping[str, Any], name: str, parameters: int | None) -> dict[str, Any]:
    """config.json, in OpenELM's layout, of a model with the base's shape whose layers have the sizes of a profile.

    The base gives layers, hidden size, width of a head, how many queries share a key, vocabulary, context, base of the
    rotation, and whether the head is the embedding. Widths are multiples of its `ffn_dim_divisor`, or of 256. Norms,
    activation and projections are OpenELM's; queries and keys are normed as in the base, head by head where it has no
    such norms.

    Args:
      base: config.json of a decoder with a forward pass.
      name: of `PROFILES`.
      parameters: of the whole model; None: those that the published points give.

    Raises:
      InputError: a base that is none, or whose rotation OpenELM's layout cannot say; parameters out of reach.
    """
    family = find_family(base)
    if family.read is None or family.encoder:
        raise InputError(f"--profile {name}: model_type {base.get('model_type')!r} in --config is no decoder that runs")
    model = family.read(base)
    shape = Shape(
        layers=model.num_layers,
        hidden_size=model.hidden_size,
        head_dim=model.head_dim,
        kv_ratio=model.num_heads // model.num_kv_heads,
        vocab_size=model.vocab_size,
        tied=model.tied,
        ffn_divisor=integer(base, "ffn_dim_divisor", 256),
        qk_norm="all" if model.qk_norm == "all" else "head",
    )
    try:
        profile = PROFILES[name] if parameters is None else fit(PROFILES[name], shape, parameters)
        sizes = layer_sizes(profile, shape)
    except InputError as error:  # in the words of `lesa profile`
        entries = "num_hidden_layers, hidden_size and ffn_dim_divisor"
        raise InputError(f"--profile {name}: {error} (--layers and the like are {entries} in --config)") from None
    return to_config(shape, sizes, profile) | {
        **{key: base[key] for key in CARRIED if key in base},
        "max_context_length": model.max_position_embeddings,
        "rope_max_length": 2 * model.max_position_embeddings,
        "rope_freq_constant": rotation_base(model, name),
    }


def rotation_base(model: ModelConfig, name: str) -> float:
    """The one number that the layout has for rotations.

    Raises:
      InputError: the base's need more.
    """
    match model.ropes:
        case (rope,) if rope is not None and rope.scaling is None and rope.width == model.head_dim:
            if not model.interleaved and model.latent is None and set(model.windows) == {None}:
                return rope.theta
    raise InputError(
        f"--profile {name}: this {model.model_type} has windows, or positions that are no plain rotations of whole "
        "heads, which OpenELM's layout cannot say; take a --config such as a Llama's without rope_scaling"
    )
