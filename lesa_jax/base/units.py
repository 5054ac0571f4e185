"""Numbers as people write and read them."""

import math
import re
from datetime import timedelta
from decimal import Decimal

from lesa_jax.base.errors import InputError


def format_bytes(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.1f} MB"


def finite(value: float | int | None) -> float | int | None:
    """The value; None for NaN and infinities, which JSON does not have."""
    return value if value is not None and math.isfinite(value) else None


def short(count: float | int) -> str:
    """1500000 as 1.5M."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(count) >= unit:
            return f"{count / unit:.4g}{name}"
    return f"{count:.4g}"


def short_rate(rate: float | int) -> str:
    """12345.6 as 12.3k."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if rate >= unit:
            return f"{rate / unit:.{3 - len(str(int(rate / unit)))}f}{name}"
    return f"{rate:.0f}"


def duration(seconds: float) -> str:
    """90.4 as 0:01:30."""
    return str(timedelta(seconds=int(seconds)))


def parse_numbers(option: str, text: str) -> list[int]:
    """`15-17` or `3,5,7`, or both mixed, as a list of numbers of layers or gaps.

    Raises InputError for anything else.
    """
    numbers: list[int] = []
    for word in text.split(","):
        first, dash, last = word.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise InputError(f"{option} {text}: {word!r} is neither a number nor a range; write 15-30 or 3,5,7")
        if len(first) > 4 or len(last) > 4:
            raise InputError(f"{option} {text}: {word!r}: no model has that many layers")
        numbers += range(int(first), int(last if dash else first) + 1)
    return numbers


def parse_bytes(option: str, text: str) -> int:
    """`16GB` as 16,000,000,000; also `16G` or a plain number.

    Raises InputError for anything but a whole number of bytes.
    """
    word = text.strip().upper()
    number = word[:-1] if len(word) > 1 and word.endswith("B") and word[-2] in "KMGT" else word
    try:
        return parse_count(option, number)
    except InputError:
        raise InputError(f"{option} {text}: expected an amount of memory, such as 500MB or 16GB") from None


UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
NUMBER = re.compile(r"(\d{1,20}(?:\.\d{1,20})?(?:E\d{1,2})?)([KMBGT]?)", re.ASCII)
MOST = 10**15  # far beyond what was ever trained on, and well within what arrays and floats count exactly


def parse_count(option: str, text: str) -> int:
    """`200M` as 200,000,000; also `2e8`.

    Raises InputError for anything but a whole number from 1 to 1e15.
    """
    match = NUMBER.fullmatch(text.strip().upper().replace("_", ""))
    count = Decimal(match[1]) * UNITS[match[2]] if match else Decimal(0)
    if not 1 <= count <= MOST or count % 1:
        raise InputError(f"{option} {text}: expected a whole number from 1 to 1e15, such as 500000, 200M or 1.5B")
    return int(count)
