"""The five profiles of arXiv 2509.06518, and the sizes that a profile gives to layers.

Points are those of its public code, baroian/OLMo-custom: base18L, LWS18L, LWS_freeze, ReverseLWS and autoencoder of
configs/. OpenELM's own profile (arXiv 2404.14619) is `vanilla` with the feed-forward points 0.5 and 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lesa_jax.base.errors import InputError
from lesa_jax.profiles.curves import FEWEST_LAYERS, curve
from lesa_jax.profiles.rounding import ROUNDINGS
from lesa_jax.profiles.sizes import Shape, Sizes

FRAME_FFN, FRAME_QKV = 4.0, 1.0  # what a frame is made of (`layer_freeze` in the public code)


@dataclass(frozen=True)
class Profile:
    """A rule for the sizes of layers, by multiples of the hidden size.

    Attributes:
      name: of the rule.
      ffn: points of the feed-forward widths over depth.
      qkv: points of the widths of all query heads together.
      framed: whether the first and the last layer have full width instead of the curve's.
    """

    name: str
    ffn: tuple[float, ...]
    qkv: tuple[float, ...]
    framed: bool = False


PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("isotropic", (2.5,), (0.75,)),
        Profile("vanilla", (1.0, 4.0), (0.5, 1.0)),
        Profile("framed", (0.5, 4.0), (0.5, 1.0), framed=True),
        Profile("reverse", (4.0, 0.5), (1.0, 0.5), framed=True),
        Profile("crown", (0.5, 3.8, 0.5), (0.5, 1.0, 0.5), framed=True),
    )
}


def multipliers(profile: Profile, layers: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of feed-forward widths and of query widths, each [layers].

    Raises:
      InputError: fewer layers than points.
    """
    points = max(len(profile.ffn), len(profile.qkv))
    if layers < FEWEST_LAYERS[points]:
        raise InputError(f"--layers {layers}: {profile.name} goes through {points} points; take {points} or more")
    ffn, qkv = curve(profile.ffn, layers), curve(profile.qkv, layers)
    return (frame(ffn, FRAME_FFN), frame(qkv, FRAME_QKV)) if profile.framed else (ffn, qkv)


def frame(values: tuple[float, ...], ends: float) -> tuple[float, ...]:
    return (ends, *values[1:-1], ends)


def layer_sizes(profile: Profile, shape: Shape) -> Sizes:
    """What the profile makes of the shape; every layer has the same number of query heads to a key-value head.

    Raises:
      InputError: fewer layers than points.
    """
    to_multiple = ROUNDINGS[shape.rounding]
    ffn, qkv = multipliers(profile, shape.layers)
    # A multiple of the heads that share a key-value head, so that these divide the query heads.
    widths = [to_multiple(shape.hidden_size * m, shape.kv_ratio * shape.head_dim) for m in qkv]
    return Sizes(
        ffn=tuple(to_multiple(shape.hidden_size * m, shape.ffn_divisor) for m in ffn),
        q_heads=tuple(width // shape.head_dim for width in widths),
        kv_heads=tuple(width // shape.head_dim // shape.kv_ratio for width in widths),
    )
