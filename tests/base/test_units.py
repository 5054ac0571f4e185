"""Numbers as people write them."""

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.base.units import parse_count, parse_numbers, short, short_rate


def test_numbers_are_short():
    assert [short(count) for count in (0, 950, 1500, 2e6, 1.25e9)] == ["0", "950", "1.5K", "2M", "1.25B"]
    assert [short_rate(rate) for rate in (7.2, 999.4, 1234.0, 12345.6, 456789.0, 2.5e6)] == [
        "7", "999", "1.23k", "12.3k", "457k", "2.50M",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1", 1),
        (" 500_000 ", 500_000),
        ("200m", 200_000_000),
        ("1.5B", 1_500_000_000),
        ("0.1K", 100),
        ("1e6", 1_000_000),
        ("2.5E3", 2500),
        ("1T", 10**12),
        ("1e15", 10**15),
    ],
)
def test_counts_are_read_as_people_write_them(text, count):
    assert parse_count("--tokens", text) == count


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "-5", "0M", "1e23", "1" + "0" * 23, "9" * 5000, "1000001G", "1e99", "1e999999999", "1e5.5", "1e-3"),
        *("inf", "nan", "infinity", "1.5", "0.0001K", "M", "1MM", "1 M", "0x10", "\u0661", "1,000"),
    ],
)
def test_counts_that_no_run_has_are_refused(text):
    with pytest.raises(InputError, match="--tokens .*expected a whole number from 1 to 1e15"):
        parse_count("--tokens", text)


@pytest.mark.parametrize(
    ("text", "numbers"), [("3", [3]), ("3,5,7", [3, 5, 7]), ("15-18", [15, 16, 17, 18]), ("1-2, 4", [1, 2, 4])]
)
def test_layers_are_numbers_and_ranges(text, numbers):
    assert parse_numbers("--layers", text) == numbers
