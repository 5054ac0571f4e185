"""Entries of config.json as values of the type that they must have; whatever else stands there is named in one line.

Python's JSON also reads NaN, Infinity and integers of any length, and takes `true` for a number: none of that is meant.
An entry that is null counts as absent only where it is read by a function that says so.
"""

from collections.abc import Mapping
from typing import Any, TypeGuard

from lesa_jax.base.errors import InputError

LARGEST = 2**31 - 1  # no size, count or position of a model is larger
FLOAT32 = (2.0**-126, 2.0**127)  # what models are computed in has all numbers between
MOST_LAYERS = 10_000


def wrong(key: str, value: Any, expected: str) -> InputError:
    """The error for an entry that is not what it must be."""
    shown = repr(value)
    return InputError(
        f"config.json: {key} is {shown if len(shown) <= 60 else shown[:57] + '...'}; expected {expected}; correct it"
    )


def is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def integer(config: Mapping[str, Any], key: str, absent: int | None = None, least: int = 1, most: int = LARGEST) -> int:
    """A size or a count; `absent` is what a config without the entry means."""
    value = config.get(key, absent)
    if not is_integer(value) or not least <= value <= most:
        raise wrong(key, value, "a positive integer" if (least, most) == (1, LARGEST) else f"{least} to {most}")
    return value


def integer_or_none(config: Mapping[str, Any], key: str, absent: int | None = None) -> int | None:
    """A size that may be null; `absent` is what a config without the entry means."""
    if config.get(key, absent) is None:
        return None
    return integer({key: absent, **config}, key)


def number(config: Mapping[str, Any], key: str, absent: float | None = None) -> float:
    """A positive number; `absent` is what a config without the entry means."""
    value, (least, most) = config.get(key, absent), FLOAT32
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise wrong(key, value, "a positive number")
    return float(value)


def flag(config: Mapping[str, Any], key: str, absent: bool = False) -> bool:
    value = config.get(key, absent)
    if not isinstance(value, bool):
        raise wrong(key, value, "true or false")
    return value


def mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Nested entries; none where there is nothing, null, or nothing in them."""
    value = config.get(key) or {}
    if not isinstance(value, Mapping):
        raise wrong(key, value, "an object with entries of its own")
    return value


def words(config: Mapping[str, Any], key: str) -> list[str] | None:
    """A list of words, such as the kind of each layer; None where there is none."""
    value = config.get(key)
    if value is not None and not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
        raise wrong(key, value, "a list of words")
    return value
