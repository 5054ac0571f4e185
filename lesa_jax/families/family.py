"""What families of models call their parts, and where they depart from Llama."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Family:
    """Where a family departs from Llama: what transformers assumes when `config.json` leaves a key out."""

    # None: as many key-value heads as query heads.
    default_kv_heads: int | None
    # None: read `attention_bias` from the configuration, which then also gives the output projection a bias.
    qkv_bias: bool | None
    windows: Literal["none", "all_layers", "layer_types"]
    default_window: int | None = None


FAMILIES: Mapping[str, Family] = {
    "llama": Family(default_kv_heads=None, qkv_bias=None, windows="none"),
    "mistral": Family(default_kv_heads=8, qkv_bias=False, windows="all_layers", default_window=4096),
    "qwen2": Family(default_kv_heads=32, qkv_bias=True, windows="layer_types", default_window=4096),
}
