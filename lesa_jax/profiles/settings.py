"""The options of `python -m lesa_jax.profile`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from lesa_jax.base.settings import free
from lesa_jax.profiles.rounding import Rounding
from lesa_jax.profiles.sizes import QKNorm

ProfileName = Literal["all", "isotropic", "vanilla", "framed", "reverse", "crown", "explicit"]


@dataclass(frozen=True)
class ProfileSettings:
    """Sizes of layers over depth: feed-forward widths and attention heads, and the parameters of such a model.

    Examples:
      python -m lesa_jax.profile crown --layers 18 --hidden-size 768 --head-dim 64 --kv-ratio 3 --json
      python -m lesa_jax.profile crown --parameters 120M --config crown/config.json
      python -m lesa_jax.profile vanilla --ffn 0.5,4 --layers 16 --hidden-size 1280 --kv-ratio 4
    """

    profile: Positional[ProfileName] = "all"
    """all: the five at an equal number of parameters, the isotropic one's if --parameters says no other. explicit: the
    lists in --ffn and --heads."""
    layers: int = 18
    """How many."""
    hidden_size: int = 768
    """Width of the residual stream."""
    head_dim: int = 64
    """Width of one attention head."""
    kv_ratio: int = 3
    """Query heads to one key-value head, in every layer."""
    ffn: str | None = None
    """Other points of the feed-forward widths than the profile's, as multiples of --hidden-size: 0.5,4. explicit: the
    width of each layer: 768,1024,..."""
    heads: str | None = None
    """The same of the widths of all query heads together: 0.5,1. explicit: the number of query heads of each layer."""
    parameters: str | None = None
    """Parameters of the whole model, such as 120M: the widest point of --ffn moves until they are met within 1 %."""
    vocab_size: int = 32000
    """Rows of the embedding."""
    tied: bool = True
    """The embedding is the head, too."""
    ffn_divisor: int = 256
    """Feed-forward widths are multiples of it; small models need a smaller one to meet --parameters."""
    rounding: Rounding = "openelm"
    """How widths become such multiples: by OpenELM's code, or by that of the other profiles (olmo). All published
    widths are the same by both."""

    qk_norm: QKNorm = "head"
    """What norms of queries and keys are over: each head (OpenELM), or all heads together (OLMo 2, the other profiles'
    code), which no reader of the layout but lesa_jax knows."""

    norm_scaling: bool = False
    """What layer l reads is scaled by 1/sqrt(l) (LayerNorm Scaling), by a list in config.json that only lesa_jax reads
    and that growth keeps for old layers. (train --init norm-scaling has it in the weights instead.)"""

    config: Path | None = free(None)
    """Write the model's config.json there, in OpenELM's layout."""
    json: bool = free(False)
    """Print JSON instead of a table."""
    debug: bool = free(False)
    """Show where an error came from, not only what it is."""
