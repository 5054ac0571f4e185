"""Numbers as reports write them."""

from lesa_jax.base.units import duration, short

UNITS = {
    "tokens": ((1e9, "billion tokens"), (1e6, "million tokens"), (1e3, "thousand tokens"), (1.0, "tokens")),
    "flops": ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1.0, "FLOP")),
    "seconds": ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds")),
}


def scale(largest: float, name: str) -> tuple[float, str]:
    """What to divide an axis of tokens, flops or seconds by, and its unit."""
    return next((unit for unit in UNITS[name] if largest >= unit[0]), UNITS[name][-1])


def amount(value: float | int, name: str) -> str:
    """1.5e12 flops as 1.5 TFLOP."""
    if not value:
        return "0"
    if name == "seconds":
        return f"{value:.1f} s" if value < 60 else duration(value)
    if name == "tokens":
        return short(float(f"{value:.3g}"))
    divisor, unit = scale(value, name)
    return f"{value / divisor:.3g} {unit}"


def number(value: float, mean: float | None = None) -> str:
    """A perplexity, or the standard deviation that belongs to a mean, with as many decimals as the mean has."""
    size = value if mean is None else mean
    return f"{value:.2f}" if size < 1e3 else f"{value:.0f}" if size < 1e5 else f"{value:.3g}"


def mean_sd(mean: float | None, sd: float | None) -> str:
    return "-" if mean is None else number(mean) if sd is None else f"{number(mean)} +- {number(sd, mean)}"
