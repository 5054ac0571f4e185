"""config.json of a model whose layers differ, in the layout of apple/OpenELM's."""

from dataclasses import replace
from typing import Any

from lesa_jax.families.openelm import round_openelm
from lesa_jax.profiles.named import Profile, layer_sizes, multipliers
from lesa_jax.profiles.sizes import Shape, Sizes

CONTEXT = 2048  # tokens, as in all released sizes


def to_config(shape: Shape, sizes: Sizes, profile: Profile | None = None) -> dict[str, Any]:
    """config.json; that of OpenELM's own profile is what apple released, but for `auto_map` and dtype.

    Args:
      shape: of the model.
      sizes: of its layers.
      profile: that made them; None where they were given as lists.
    """
    ours: dict[str, Any] = {"qk_norm": "all"} if shape.qk_norm == "all" else {}  # which apple's own code does not know
    if shape.norm_scaling:
        ours["norm_scales"] = [(layer + 1) ** -0.5 for layer in range(shape.layers)]
    return ours | {
        "activation_fn_name": "swish",
        "architectures": ["OpenELMForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "ffn_dim_divisor": shape.ffn_divisor,
        "ffn_multipliers": ffn_entry(shape, sizes, profile),
        "ffn_with_glu": True,
        "head_dim": shape.head_dim,
        "initializer_range": 0.02,
        "max_context_length": CONTEXT,
        "model_dim": shape.hidden_size,
        "model_type": "openelm",
        "normalization_layer_name": "rms_norm",
        "normalize_qk_projections": True,
        "num_gqa_groups": shape.kv_ratio,
        "num_kv_heads": list(sizes.kv_heads),
        "num_query_heads": list(sizes.q_heads),
        "num_transformer_layers": shape.layers,
        "qkv_multipliers": qkv_entry(shape, sizes, profile),
        "rope_freq_constant": 10000,
        "rope_max_length": 2 * CONTEXT,
        "share_input_output_layers": shape.tied,
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }


def ffn_entry(shape: Shape, sizes: Sizes, profile: Profile | None) -> list[float]:
    """A multiplier for each layer, of which every reader makes the layer's width again.

    Readers round by OpenELM's rule, whichever rule made the width; where that would give another one, it is the width
    itself over the hidden size.
    """
    own = [width / shape.hidden_size for width in sizes.ffn]
    wished = own if profile is None else multipliers(profile, shape.layers)[0]
    return [
        m if round_openelm(m * shape.hidden_size, shape.ffn_divisor) == width else exact
        for m, exact, width in zip(wished, own, sizes.ffn, strict=True)
    ]


def qkv_entry(shape: Shape, sizes: Sizes, profile: Profile | None) -> float | list[float]:
    """What OpenELM's own code (configuration_openelm.py) computes the heads of, over the lists that are there.

    It knows a number, or two points. Where these give other heads than ours, each layer has its multiplier, at which
    that code stops rather than build another model. llama.cpp and mlx-lm read the lists of heads.
    """
    if profile is not None and len(profile.qkv) < 3:
        theirs = layer_sizes(replace(profile, framed=False), replace(shape, rounding="openelm"))
        if theirs.q_heads == sizes.q_heads:
            return profile.qkv[0] if len(profile.qkv) == 1 else list(profile.qkv)
    return [heads * shape.head_dim / shape.hidden_size for heads in sizes.q_heads]
