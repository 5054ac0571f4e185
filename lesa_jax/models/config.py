"""What the forward pass needs to know of a model, read from a Hugging Face `config.json`.

Families differ by the few switches of `lesa_jax.families`; there is one forward pass. Whatever it cannot compute
exactly is refused here, before any weight is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families.family import Decoder, Names
from lesa_jax.families.table import FAMILIES, find_family


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's frequency-dependent stretch of the rotary wavelengths (`rope_type: llama3`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding: base `theta`, positions divided by `factor` (1.0: none), or Llama 3.1's scaling."""

    theta: float = 10000.0
    factor: float = 1.0
    llama3: Llama3Scaling | None = None


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer (pre-norm, RMSNorm, rotary attention, gated SiLU feed-forward).

    Hashable, so that it can be a static argument of `jax.jit`. `names` are those of its parts. `windows` holds for each
    layer the number of tokens it may attend to, the token itself included; None means every earlier token.
    """

    model_type: str
    names: Names
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    max_position_embeddings: int
    rope: RopeConfig
    tied: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    windows: tuple[int | None, ...]

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "ModelConfig":
        """Reads a `config.json` dictionary, as transformers 4 or 5 writes it.

        Raises InputError for a model type, rotary scaling, activation or quantisation that the forward pass does not
        implement, and for a missing or contradictory entry.
        """
        family = find_family(config)
        decoder = family.decoder
        if decoder is None:
            supported = ", ".join(sorted(name for name, family in FAMILIES.items() if family.decoder))
            model_type = config.get("model_type")
            raise InputError(
                f"config.json: model_type {model_type!r} has no forward pass here; supported: {supported} "
                "(growing a checkpoint without running it needs none)"
            )
        _refuse_unsupported(config)
        heads, hidden, layers = (
            _integer(config, key) for key in ("num_attention_heads", "hidden_size", "num_hidden_layers")
        )
        kv_heads = config.get("num_key_value_heads", decoder.default_kv_heads) or heads
        if heads % kv_heads:
            raise InputError(
                f"config.json: num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
            )
        attention_bias = bool(config.get("attention_bias", False)) if decoder.qkv_bias is None else decoder.qkv_bias
        return cls(
            model_type=family.model_type,
            names=decoder.names,
            vocab_size=_integer(config, "vocab_size"),
            hidden_size=hidden,
            intermediate_size=_integer(config, "intermediate_size"),
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=config.get("head_dim") or hidden // heads,
            norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            max_position_embeddings=_integer(config, "max_position_embeddings"),
            rope=_rope(config),
            tied=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=attention_bias,
            o_bias=attention_bias and decoder.qkv_bias is None,
            mlp_bias=bool(config.get("mlp_bias", False)) and decoder.qkv_bias is None,
            windows=_windows(config, decoder, layers),
        )


def _integer(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"config.json: {key} is {value!r}; expected a positive integer")
    return value


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise InputError(f"config.json: hidden_act {activation!r} is not implemented; supported: silu")
    if config.get("quantization_config"):
        raise InputError("config.json: quantization_config is set; dequantise the checkpoint before running it here")


def _rope(config: Mapping[str, Any]) -> RopeConfig:
    """`rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (before)."""
    entry = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    if any(isinstance(value, Mapping) for value in entry.values()):
        raise InputError("config.json: rope_parameters per layer type are not implemented; one entry for all layers is")
    kind = entry.get("rope_type", entry.get("type", "default"))
    theta = float(entry.get("rope_theta", config.get("rope_theta", 10000.0)))
    partial = entry.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) or 1.0
    if partial != 1.0:
        raise InputError(f"config.json: partial_rotary_factor {partial} is not implemented; supported: 1.0")
    try:
        if kind == "default":
            return RopeConfig(theta)
        if kind == "linear":
            return RopeConfig(theta, factor=float(entry["factor"]))
        if kind == "llama3":
            return RopeConfig(
                theta,
                llama3=Llama3Scaling(
                    factor=float(entry["factor"]),
                    low_freq_factor=float(entry["low_freq_factor"]),
                    high_freq_factor=float(entry["high_freq_factor"]),
                    original_max_position_embeddings=int(entry["original_max_position_embeddings"]),
                ),
            )
    except KeyError as missing:
        raise InputError(f"config.json: rope type {kind!r} needs the entry {missing}") from None
    raise InputError(f"config.json: rope type {kind!r} is not implemented; supported: default, linear, llama3")


def _windows(config: Mapping[str, Any], decoder: Decoder, layers: int) -> tuple[int | None, ...]:
    if decoder.windows == "none":
        return (None,) * layers
    window = config.get("sliding_window", decoder.default_window)
    if decoder.windows == "all_layers":
        return (window,) * layers
    if not config.get("use_sliding_window", False):
        window = None
    kinds = config.get("layer_types")
    if kinds is None:
        first = config.get("max_window_layers", 28)
        kinds = ["sliding_attention" if window and layer >= first else "full_attention" for layer in range(layers)]
    if len(kinds) != layers:
        raise InputError(f"config.json: layer_types has {len(kinds)} entries; num_hidden_layers is {layers}")
    unknown = set(kinds) - {"full_attention", "sliding_attention"}
    if unknown:
        raise InputError(
            f"config.json: layer_types {sorted(unknown)} are not implemented; "
            "supported: full_attention, sliding_attention"
        )
    if window is None and "sliding_attention" in kinds:
        raise InputError(
            "config.json: layer_types names sliding_attention, but sliding_window is null or use_sliding_window false"
        )
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
