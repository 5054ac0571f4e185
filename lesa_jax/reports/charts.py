"""Axes and their ticks."""

import math
from collections.abc import Sequence

from lesa_jax.base.units import duration, short
from lesa_jax.reports.palette import style

WIDTH, HEIGHT = 380, 290  # of a panel, in units of the SVG: about a pixel on a telephone
LEFT, RIGHT, TOP, BOTTOM = 46, 372, 8, 254  # of the plot inside


def colour_of(position: int) -> str:
    return f"k{style(position)[0]}" if position else "ink"


def dashes_of(position: int) -> str:
    return f" d{style(position)[1]}" if position else " strong"


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values between two ends, at most `most` and one."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """All with as many decimals as the longest needs."""
    shortest = [f"{tick:.10g}" for tick in ticks]
    decimals = max((len(text.partition(".")[2]) for text in shortest if "e" not in text), default=0)
    return [f"{tick:.{decimals}f}" if "e" not in text else text for tick, text in zip(ticks, shortest, strict=True)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between two natural logarithms: 1, 2, 5, 10, .., or fewer where they would crowd."""
    powers = range(math.floor(low / math.log(10)), math.ceil(high / math.log(10)) + 1)
    for factors in ((1, 2, 5), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low <= math.log(tick) <= high]
        if len(ticks) <= 6:
            return ticks
    return ticks[:: math.ceil(len(ticks) / 6)]


UNITS = {
    "tokens": ((1e9, "billion tokens"), (1e6, "million tokens"), (1e3, "thousand tokens"), (1.0, "tokens")),
    "flops": ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1.0, "FLOP")),
    "seconds": ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds")),
}


def scale(largest: float, name: str) -> tuple[float, str]:
    """What to divide an axis by, and its unit."""
    return next((unit for unit in UNITS[name] if largest >= unit[0]), UNITS[name][-1])


def number(value: float, mean: float | None = None) -> str:
    """A perplexity, or the standard deviation that belongs to a mean, with as many decimals as the mean has."""
    size = value if mean is None else mean
    return f"{value:.2f}" if size < 1e3 else f"{value:.0f}" if size < 1e5 else f"{value:.3g}"


def mean_sd(mean: float | None, sd: float | None) -> str:
    return "-" if mean is None else number(mean) if sd is None else f"{number(mean)} +- {number(sd, mean)}"


def amount(value: float, name: str) -> str:
    """1.5e12 flops as 1.5 TFLOP."""
    if not value:
        return "0"
    if name == "seconds":
        return f"{value:.1f} s" if value < 60 else duration(value)
    if name == "tokens":
        return short(float(f"{value:.3g}"))
    divisor, unit = scale(value, name)
    return f"{value / divisor:.3g} {unit}"
