"""Nested settings are one flat list, of which records keep what decides the result."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.settings import check_seed, deciding, flatten, free, option


@dataclass(frozen=True)
class Inner:
    rates: tuple[float, ...] = (0.9, 0.95)
    devices: int = free(1)


@dataclass(frozen=True)
class Outer:
    model: str
    inner: Inner = Inner()
    folder: Path = Path("here")
    shown: bool = free(True)


def test_groups_are_flattened_in_order():
    settings = Outer("m", Inner(devices=8))
    expected = {"model": "m", "rates": (0.9, 0.95), "devices": 8, "folder": Path("here"), "shown": True}
    assert flatten(settings) == expected
    assert list(flatten(settings)) == list(expected)


def test_a_record_holds_what_decides_as_json():
    record = deciding(Outer("m", Inner(devices=8), shown=False))
    assert record == {"model": "m", "rates": [0.9, 0.95], "folder": "here"}
    assert json.loads(json.dumps(record)) == record


def test_options_are_spelled_as_in_a_shell():
    assert option("learning_rate") == "--learning-rate"


def test_no_seed_is_the_same_as_another():
    for seed in (0, 2**32 - 1):
        check_seed(seed)
    for seed in (-1, 2**32, 10**40):
        with pytest.raises(InputError, match=f"--seed {seed}: expected 0 to 4294967295"):
            check_seed(seed)
