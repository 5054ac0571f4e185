"""A profile from its settings to its sizes, and to config.json."""

import math
import os
from dataclasses import replace

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import write_json
from lesa_jax.base.settings import by_name, option
from lesa_jax.base.units import parse_count
from lesa_jax.families.entries import LARGEST, MOST_LAYERS
from lesa_jax.profiles.budget import WIDEST, equal_budget, fit
from lesa_jax.profiles.config import to_config
from lesa_jax.profiles.named import PROFILES, Profile, layer_sizes
from lesa_jax.profiles.result import Made, ProfileResult
from lesa_jax.profiles.settings import ProfileSettings
from lesa_jax.profiles.sizes import Shape, explicit_sizes


@by_name(ProfileSettings)
def profile(settings: ProfileSettings) -> ProfileResult:
    """The sizes of layers that the settings ask for; writes config.json if they name a file.

    Raises:
      InputError: options that contradict each other or that no model can have, a budget that is not reachable, a file
        that is there already.
    """
    shape = read_shape(settings)
    budget = None if settings.parameters is None else parse_count("--parameters", settings.parameters)
    if settings.config is not None and os.path.lexists(settings.config):
        raise InputError(f"--config {settings.config}: is there already; name a file that is not")
    match settings.profile:
        case "all":
            refuse(settings, "all compares the five as they are", "ffn", "heads", "config")
            made = tuple(Made(shape, layer_sizes(found, shape), found) for found in equal_budget(shape, budget))
            budget = budget or made[0].parameters  # the isotropic one comes first
        case "explicit":
            refuse(settings, "explicit lists have no point that could move", "parameters")
            ffn, heads = (read_list(name, getattr(settings, name)) for name in ("ffn", "heads"))
            made = (Made(shape, explicit_sizes(shape, ffn, heads)),)
        case name:
            found = read_profile(PROFILES[name], settings)
            found = found if budget is None else fit(found, shape, budget)
            made = (Made(shape, layer_sizes(found, shape), found),)
    if settings.config is not None:
        settings.config.parent.mkdir(parents=True, exist_ok=True)
        write_json(settings.config, to_config(shape, made[0].sizes, made[0].profile))
    return ProfileResult(made, budget, settings.config, settings.json)


def read_shape(settings: ProfileSettings) -> Shape:
    """What all layers share.

    Raises:
      InputError: a size that no model has.
    """
    counts = ("layers", "hidden_size", "head_dim", "kv_ratio", "vocab_size", "ffn_divisor")
    for name in counts:
        value, most = getattr(settings, name), MOST_LAYERS if name == "layers" else LARGEST
        if not 1 <= value <= most:
            raise InputError(f"{option(name)} {value}: expected 1 to {most}")
    if settings.head_dim % 2:
        raise InputError(f"--head-dim {settings.head_dim}: rotary positions turn pairs; take an even number")
    sizes = {name: getattr(settings, name) for name in counts}
    return Shape(
        **sizes,
        tied=settings.tied,
        rounding=settings.rounding,
        qk_norm=settings.qk_norm,
        norm_scaling=settings.norm_scaling,
    )


def refuse(settings: ProfileSettings, why: str, *names: str) -> None:
    for name in names:
        if getattr(settings, name) is not None:
            raise InputError(f"{option(name)}: {why}; leave it out, or name one of {', '.join(PROFILES)}")


def read_profile(published: Profile, settings: ProfileSettings) -> Profile:
    """The published profile, with the user's points where there are some.

    Raises:
      InputError: points of another number than the profile's, and more than one for all layers.
    """
    ffn, qkv = published.ffn, published.qkv
    if settings.ffn is not None:
        ffn = read_points("--ffn", settings.ffn, published.name, len(ffn))
    if settings.heads is not None:
        qkv = read_points("--heads", settings.heads, published.name, len(qkv))
    return replace(published, ffn=ffn, qkv=qkv)


def read_points(given: str, text: str, name: str, count: int) -> tuple[float, ...]:
    """`0.5,4` as multiples of the hidden size."""
    try:
        points = tuple(map(float, text.split(",")))
    except ValueError:
        points = (math.nan,)
    if not all(0 < point <= WIDEST for point in points):
        raise InputError(f"{given} {text}: expected multiples of --hidden-size, up to {WIDEST:g}, such as 0.5,4")
    if len(points) not in (1, count):
        expected = "1 point" if count == 1 else f"{count} points, or 1 for all layers"
        raise InputError(
            f"{given} {text}: {len(points)} points, but {name} goes through {expected}; to give each layer's, name "
            "explicit instead"
        )
    return points


def read_list(name: str, text: str | None) -> list[int]:
    """`768,1024` as a number for each layer."""
    words = [] if text is None else text.split(",")
    values = [int(word) if word.strip().isdecimal() and len(word) <= 12 else 0 for word in words]
    if not values or not all(1 <= value <= LARGEST for value in values):
        raise InputError(
            f"{option(name)} {text or ''}".rstrip() + ": explicit takes a positive number for each layer, such as 3,6,6"
        )
    return values
