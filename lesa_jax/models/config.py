"""What the forward pass needs to know of a model, read from a Hugging Face `config.json`.

Families differ by the few switches of `lesa_jax.families`; there is one forward pass. Whatever it cannot compute
exactly is refused here, before any weight is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families.entries import MOST_LAYERS, flag, integer, integer_or_none, mapping, number, words, wrong
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
        heads, hidden = integer(config, "num_attention_heads"), integer(config, "hidden_size")
        layers = integer(config, "num_hidden_layers", most=MOST_LAYERS)
        kv_heads = integer_or_none(config, "num_key_value_heads", decoder.default_kv_heads) or heads
        if heads % kv_heads:
            raise InputError(
                f"config.json: num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
            )
        attention_bias = flag(config, "attention_bias") if decoder.qkv_bias is None else decoder.qkv_bias
        return cls(
            model_type=family.model_type,
            names=decoder.names,
            vocab_size=integer(config, "vocab_size"),
            hidden_size=hidden,
            intermediate_size=integer(config, "intermediate_size"),
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=_head_dim(config, hidden, heads),
            norm_eps=number(config, "rms_norm_eps", 1e-6),
            max_position_embeddings=integer(config, "max_position_embeddings"),
            rope=_rope(config),
            tied=flag(config, "tie_word_embeddings"),
            qkv_bias=attention_bias,
            o_bias=attention_bias and decoder.qkv_bias is None,
            mlp_bias=decoder.qkv_bias is None and flag(config, "mlp_bias"),
            windows=_windows(config, decoder, layers),
        )


def _head_dim(config: Mapping[str, Any], hidden: int, heads: int) -> int:
    head_dim = integer_or_none(config, "head_dim")
    if head_dim is None:
        head_dim = hidden // heads
    if head_dim == 0 or head_dim % 2:
        raise InputError(
            f"config.json: heads are {head_dim} wide (head_dim, or hidden_size {hidden} over num_attention_heads "
            f"{heads}); rotary attention needs an even width"
        )
    return head_dim


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    activation = config.get("hidden_act", "silu")
    if not isinstance(activation, str):
        raise wrong("hidden_act", activation, "the name of an activation")
    if activation != "silu":
        raise InputError(f"config.json: hidden_act {activation!r} is not implemented; supported: silu")
    if config.get("quantization_config"):
        raise InputError("config.json: quantization_config is set; dequantise the checkpoint before running it here")


def _rope(config: Mapping[str, Any]) -> RopeConfig:
    entry = _rope_entry(config)
    kind = entry["rope_type"]
    if entry.get("partial_rotary_factor", 1.0) != 1.0:
        raise InputError(
            f"config.json: partial_rotary_factor {entry['partial_rotary_factor']!r} is not implemented; supported: 1.0"
        )
    if kind not in ("default", "linear", "llama3"):
        raise InputError(f"config.json: rope type {kind!r} is not implemented; supported: default, linear, llama3")
    theta = number(entry, "rope_theta")
    needed = {"default": (), "linear": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor")}[kind]
    if missing := [key for key in needed if key not in entry]:
        raise InputError(f"config.json: rope type {kind!r} needs the entry {missing[0]!r}")
    values = {key: number(entry, key) for key in needed}
    if kind != "llama3":
        return RopeConfig(theta, **values)
    if values["low_freq_factor"] >= values["high_freq_factor"]:
        raise wrong("low_freq_factor", values["low_freq_factor"], "less than high_freq_factor")
    positions = integer(entry, "original_max_position_embeddings")
    return RopeConfig(theta, llama3=Llama3Scaling(**values, original_max_position_embeddings=positions))


def _rope_entry(config: Mapping[str, Any]) -> dict[str, Any]:
    """All that config.json says of the rotation, resolved as transformers 5 does.

    `rope_scaling` (before version 5), where it says anything, stands instead of `rope_parameters`, whole. The entries
    beside it fill in what it lacks, but for `original_max_position_embeddings`, where the entry beside it wins.
    """
    entry = dict(mapping(config, "rope_scaling") or mapping(config, "rope_parameters"))
    if any(isinstance(value, Mapping) for value in entry.values()):
        raise InputError("config.json: rope_parameters per layer type are not implemented; one entry for all layers is")
    entry.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    entry.setdefault("rope_type", entry.get("type", "default"))
    if config.get("partial_rotary_factor") is not None:
        entry.setdefault("partial_rotary_factor", config["partial_rotary_factor"])
    entry.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    if "original_max_position_embeddings" in config:
        entry["original_max_position_embeddings"] = config["original_max_position_embeddings"]
    return entry


def _windows(config: Mapping[str, Any], decoder: Decoder, layers: int) -> tuple[int | None, ...]:
    if decoder.windows == "none":
        return (None,) * layers
    if decoder.windows == "all_layers":
        return (integer_or_none(config, "sliding_window", decoder.default_window),) * layers
    used = flag(config, "use_sliding_window")
    window = integer_or_none(config, "sliding_window", decoder.default_window) if used else None
    kinds = words(config, "layer_types")
    if kinds is None:
        first = integer(config, "max_window_layers", least=0) if "max_window_layers" in config else 28
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
