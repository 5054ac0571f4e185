"""What config.json says of the rotary position embedding, resolved as transformers 5 does."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.families.entries import flag, integer, mapping, number, wrong
from lesa_jax.families.model import Dynamic, Linear, Llama3, LongRope, Rope, Yarn

TYPES = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
FULL, SLIDING = "full_attention", "sliding_attention"  # kinds of layers in `layer_types`
BESIDE = ("rope_theta", "partial_rotary_factor")


def read_rope(
    config: Mapping[str, Any],
    head_dim: int,
    theta: float = 10000.0,
    share: float | None = None,
    beside: tuple[str, str] = BESIDE,
) -> Rope:
    """The rotation of all layers.

    `rope_scaling` (before version 5), where it says anything, stands instead of `rope_parameters`, whole. The entries
    beside it fill in what it lacks, but for `original_max_position_embeddings`, where the entry beside it wins.

    Args:
      config: `config.json`.
      head_dim: width of a head.
      theta: the base, where config.json is silent.
      share: the share of a head that is rotated, where config.json is silent; None: the family rotates whole heads.
      beside: what the entries for both are called where they stand beside.
    """
    entry = rope_entry(config)
    if any(isinstance(value, Mapping) for value in entry.values()):
        raise InputError("config.json: rope_parameters per layer type are not implemented; one entry for all layers is")
    said = config.get(beside[1], share)
    whole = filled(entry, config, config.get(beside[0], theta), 1.0 if said is None and share is None else said)
    if "original_max_position_embeddings" in config:
        whole["original_max_position_embeddings"] = config["original_max_position_embeddings"]
    return make_rope(whole_heads(whole) if share is None else whole, config, head_dim)


def rope_entry(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What config.json says of the rotation of all layers, in one of two places."""
    return mapping(config, "rope_scaling") or mapping(config, "rope_parameters")


def read_ropes(config: Mapping[str, Any], head_dim: int, thetas: Mapping[str, float]) -> dict[str, Rope]:
    """The rotation of each kind of layer, by its name in `layer_types`.

    Args:
      config: `config.json`.
      head_dim: width of a head.
      thetas: the base of each kind, where its entry is silent.
    """
    beside = config.get("partial_rotary_factor")
    found = {}
    for kind, entry in rope_entries(config, tuple(thetas)).items():
        whole = filled(entry, config, thetas[kind], 1.0 if beside is None else beside)
        found[kind] = make_rope(whole_heads(whole), config, head_dim)
    return found


def rope_entries(config: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What config.json says of the rotation of each kind of layer.

    Where `rope_parameters` has an entry for each kind these stand; `rope_scaling` (before version 5) speaks of layers
    with full attention only.
    """
    nested, scaling = mapping(config, "rope_parameters"), mapping(config, "rope_scaling")
    if nested and not any(isinstance(value, Mapping) for value in nested.values()):
        raise InputError("config.json: rope_parameters must have an entry for each of layer_types; correct it")
    if "type" in scaling and "rope_type" not in scaling:  # transformers 4 heeded it here, 5 does not
        raise InputError("config.json: rope_scaling has its type under the old name 'type'; call the entry 'rope_type'")
    return {kind: {**mapping(nested, kind), **(scaling if kind == FULL else {})} for kind in kinds}


def whole_heads(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry, of a family that rotates whole heads and takes no notice of a share."""
    share = entry["partial_rotary_factor"]
    if share != 1:
        raise wrong("partial_rotary_factor", share, "1.0, for this family rotates whole heads")
    return entry


def filled(entry: Mapping[str, Any], config: Mapping[str, Any], theta: Any, share: Any) -> dict[str, Any]:
    """An entry with what it means by saying nothing."""
    silent = {
        "rope_theta": theta,
        "rope_type": entry.get("type", "default"),
        "partial_rotary_factor": share,
        "original_max_position_embeddings": config.get("max_position_embeddings"),
    }
    return {**silent, **entry}


def make_rope(entry: Mapping[str, Any], config: Mapping[str, Any], head_dim: int) -> Rope:
    """A rotation from its complete entry."""
    share, kind = number(entry, "partial_rotary_factor"), entry["rope_type"]
    width = int(head_dim * share)
    if share > 1 or width % 2 or width == 0:
        raise wrong("partial_rotary_factor", share, f"a share of a head's {head_dim} numbers that is even")
    theta = number(entry, "rope_theta")
    match kind:
        case "default":
            return Rope(theta, width)
        case "linear":
            return Rope(theta, width, Linear(needed(entry, "factor")))
        case "dynamic":
            return Rope(theta, width, dynamic(entry, config, width))
        case "llama3":
            return Rope(theta, width, llama3(entry))
        case "yarn":
            return Rope(theta, width, yarn(entry))
        case "longrope":
            return Rope(theta, width, longrope(entry, config, width))
    raise InputError(f"config.json: rope type {kind!r} is not implemented; supported: {', '.join(TYPES)}")


def needed(entry: Mapping[str, Any], key: str) -> float:
    if key not in entry:
        raise InputError(f"config.json: rope type {entry['rope_type']!r} needs the entry {key!r}")
    return number(entry, key)


def dynamic(entry: Mapping[str, Any], config: Mapping[str, Any], width: int) -> Dynamic:
    if width == 2:
        raise InputError("config.json: rope type 'dynamic' is not defined for heads of which one pair is rotated")
    return Dynamic(needed(entry, "factor"), integer(config, "max_position_embeddings"))


def llama3(entry: Mapping[str, Any]) -> Llama3:
    factor, low, high = (needed(entry, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    if low >= high:
        raise wrong("low_freq_factor", low, "less than high_freq_factor")
    return Llama3(factor, low, high, integer(entry, "original_max_position_embeddings"))


def yarn(entry: Mapping[str, Any]) -> Yarn:
    factor, positions = needed(entry, "factor"), integer(entry, "original_max_position_embeddings")
    if number(entry, "rope_theta") == 1:
        raise wrong("rope_theta", entry["rope_theta"], "another number than 1 with rope type 'yarn'")
    given = {key: number(entry, key) for key in ("attention_factor", "mscale", "mscale_all_dim") if entry.get(key)}
    if "attention_factor" in given:
        magnitude = given["attention_factor"]
    elif {"mscale", "mscale_all_dim"} <= given.keys():
        magnitude = _growth(factor, given["mscale"]) / _growth(factor, given["mscale_all_dim"])
    else:
        magnitude = _growth(factor, 1.0)
    fast = number(entry, "beta_fast") if entry.get("beta_fast") else 32.0
    slow = number(entry, "beta_slow") if entry.get("beta_slow") else 1.0
    return Yarn(factor, fast, slow, positions, magnitude, flag(entry, "truncate", True))


def _growth(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def growth_of_scores(entry: Mapping[str, Any]) -> float:
    """The factor on scores by which DeepSeek's YaRN makes up for longer sequences; 1 where `mscale_all_dim` is not."""
    if entry.get("rope_type", entry.get("type", "default")) == "default" or not entry.get("mscale_all_dim"):
        return 1.0
    return _growth(needed({"rope_type": "yarn", **entry}, "factor"), number(entry, "mscale_all_dim")) ** 2


def longrope(entry: Mapping[str, Any], config: Mapping[str, Any], width: int) -> LongRope:
    positions = integer(entry, "original_max_position_embeddings", least=2)
    if entry.get("attention_factor") is not None:
        magnitude = number(entry, "attention_factor")
    else:
        longest = integer(config, "max_position_embeddings")
        factor = longest / positions if entry.get("factor") is None else number(entry, "factor")
        magnitude = math.sqrt(1 + math.log(factor) / math.log(positions)) if factor > 1 else 1.0
    short, long = (stretches(entry, key, width) for key in ("short_factor", "long_factor"))
    return LongRope(short, long, positions, magnitude)


def stretches(entry: Mapping[str, Any], key: str, width: int) -> tuple[float, ...]:
    """A factor for each rotated pair."""
    values = entry.get(key)
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != width // 2:
        raise wrong(key, values, f"a list of {width // 2} numbers, one for each rotated pair")
    return tuple(number({key: value}, key) for value in values)
