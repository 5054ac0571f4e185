"""Charts as parts of a page: inline SVG that takes its colours from the page's style sheet.

What is drawn stands at a position: 0 is the reference, in ink; every other has a colour and dashes of its own.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from lesa_jax.reports.html import plus_minus
from lesa_jax.reports.palette import style

WIDTH, HEIGHT = 380, 290  # of a panel, in units of the SVG: about a pixel on a telephone
LEFT, RIGHT, TOP, BOTTOM = 46, 372, 8, 254  # of the plot inside
LOG_RATIO = 10.0  # of the largest to the smallest value; with more an axis is logarithmic

Number = float | int


@dataclass(frozen=True)
class Dot:
    """A line of a dot chart: a mean, with the lowest and highest value that it is of.

    Attributes:
      name: as text.
      mean, lowest, highest: finite.
      text: the mean in words; " +- " is shown as a sign.
      reference: whether the others are held against this one.
    """

    name: str
    mean: Number
    lowest: Number
    highest: Number
    text: str
    reference: bool = False


@dataclass(frozen=True)
class Mark:
    """A point of a panel; its text is shown where it is pointed at, and beside it where its line goes through it.

    Attributes:
      x, y: where it is.
      text: what it is.
      ringed: whether it stands out.
    """

    x: Number
    y: Number
    text: str
    ringed: bool = False


@dataclass(frozen=True)
class Series:
    """A line of a panel.

    Attributes:
      name: shown where the line is pointed at.
      position: says how it looks.
      x, y: its points.
      band: for each point how far the band around the line reaches to both sides; empty for none.
      marks: points that belong to it, on the line or beside it.
    """

    name: str
    position: int
    x: Sequence[Number]
    y: Sequence[Number]
    band: Sequence[Number] = ()
    marks: Sequence[Mark] = ()


@dataclass(frozen=True)
class Axis:
    """Ends of an axis; its ticks say values divided by `divisor`, which are of `unit`."""

    low: Number
    high: Number
    unit: str = ""
    divisor: Number = 1.0

    def part(self, value: Number) -> float:
        """Where a value lies: 0 at the lower end, 1 at the upper."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Values and their texts."""
        values = linear_ticks(self.low / self.divisor, self.high / self.divisor, most)
        return [(value * self.divisor, text) for value, text in zip(values, tick_texts(values), strict=True)]


def dot_chart(dots: Sequence[Dot]) -> str:
    """A line for each dot, on a common axis. Lines are HTML, so that names wrap; only the marks are SVG."""
    ends = [end for dot in dots for end in (dot.lowest, dot.highest)]
    logarithmic = is_logarithmic(ends)
    low, high = (math.log(min(ends)), math.log(max(ends))) if logarithmic else (min(ends), max(ends))
    margin = 0.04 * (high - low) or 0.5
    axis = Axis(low - margin, high + margin)

    def place(value: Number) -> str:
        return f"{100 * axis.part(math.log(value) if logarithmic else value):.2f}%"

    def upright(kind: str, value: Number) -> str:
        return f'<line class="{kind}" x1="{place(value)}" x2="{place(value)}" y1="0" y2="100%"/>'

    ticks = log_ticks(axis.low, axis.high) if logarithmic else linear_ticks(axis.low, axis.high, 5)
    grid = "".join(upright("grid", tick) for tick in ticks)
    grid += "".join(upright("target", dot.mean) for dot in dots if dot.reference)
    lines = []
    for dot in dots:
        marks = f'<line class="seeds" x1="{place(dot.lowest)}" x2="{place(dot.highest)}" y1="50%" y2="50%"/>'
        marks += f'<circle class="dot" cx="{place(dot.mean)}" cy="50%" r="5"/>'
        lines.append(
            f'<li class="{"ink" if dot.reference else "k0"}"><span>{escape(dot.name)}</span>'
            f'<svg aria-hidden="true">{grid}{marks}</svg><span class="value">{plus_minus(dot.text)}</span></li>'
        )
    texts = "".join(
        f'<text class="axis" x="{place(tick)}" y="1rem" text-anchor="middle">{text}</text>'
        for tick, text in zip(ticks, tick_texts(ticks), strict=True)
    )
    lines.append(
        f'<li aria-hidden="true"><span class="blank"></span><svg>{texts}</svg><span class="value blank"></span></li>'
    )
    return f'<ol class="dots">{"".join(lines)}</ol>'


def line_panel(
    key: str,
    title: str,
    what: str,
    series: Iterable[Series],
    x: Axis,
    y: Axis,
    target: Number | None = None,
    marked: Iterable[Number] = (),
) -> str:
    """Lines over a common axis, the first ones on top.

    Args:
      key: a name of the panel that no other on the page has: letters and digits.
      title: above it.
      what: the lines show, for those who hear the page.
      series: the lines; what lies outside the axes is cut off.
      x, y: the axes.
      target: a level that is marked by a dotted line.
      marked: places along x that are marked by a band from the lower to the upper edge.
    """

    def across(value: Number) -> str:
        return f"{LEFT + (RIGHT - LEFT) * x.part(value):.1f}"

    def up(value: Number) -> str:
        return f"{BOTTOM - (BOTTOM - TOP) * y.part(value):.1f}"

    marks = []
    for tick, text in y.ticks(6):
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{up(tick)}" y2="{up(tick)}"/>')
        marks.append(f'<text class="tick" x="{LEFT - 6}" y="{up(tick)}" dy="4" text-anchor="end">{text}</text>')
    for tick, text in x.ticks(5):
        at = across(tick)
        marks.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{BOTTOM}" y2="{BOTTOM + 4}"/>')
        marks.append(f'<text class="tick" x="{at}" y="{BOTTOM + 17}" text-anchor="middle">{text}</text>')
    unit = escape(x.unit)
    marks.append(f'<text class="tick" x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 3}" text-anchor="middle">{unit}</text>')
    inside = f'<rect x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" height="{BOTTOM - TOP}"/>'
    marks.append(f'<clipPath id="in-{key}">{inside}</clipPath><g clip-path="url(#in-{key})">')
    for place in marked:
        marks.append(f'<line class="mark" x1="{across(place)}" x2="{across(place)}" y1="{TOP}" y2="{BOTTOM}"/>')
    if target is not None:
        marks.append(f'<line class="target" x1="{LEFT}" x2="{RIGHT}" y1="{up(target)}" y2="{up(target)}"/>')
    for line in reversed([*series]):
        points = " ".join(f"{across(a)},{up(b)}" for a, b in zip(line.x, line.y, strict=True))
        marks.append(
            f'<g class="{colour_of(line.position)}"><title>{escape(line.name)}</title>{band(line, across, up)}'
            f'<polyline class="curve{dashes_of(line.position)}" points="{points}"/>{dots(line, across, up)}</g>'
        )
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(what)}">{"".join(marks)}</g></svg></figure>'
    )


def band(line: Series, across: Callable[[Number], str], up: Callable[[Number], str]) -> str:
    """What lies around a line: its upper edge, and the lower one backwards."""
    if not any(line.band):
        return ""
    points = [*zip(line.x, line.y, line.band, strict=True)]
    edges = [(a, b + reach) for a, b, reach in points] + [(a, b - reach) for a, b, reach in reversed(points)]
    return f'<polygon class="band" points="{" ".join(f"{across(a)},{up(b)}" for a, b in edges)}"/>'


def dots(line: Series, across: Callable[[Number], str], up: Callable[[Number], str]) -> str:
    """A line's marks, with the texts of those that it goes through."""
    on_line, parts = {*zip(line.x, line.y, strict=True)}, []
    for mark in line.marks:
        at, text = (across(mark.x), up(mark.y)), escape(mark.text)
        ring = f'<circle class="ring" cx="{at[0]}" cy="{at[1]}" r="6"/>' if mark.ringed else ""
        title = f"<title>{escape(line.name)}: {text}</title>"
        parts.append(f'{ring}<circle class="dot" cx="{at[0]}" cy="{at[1]}" r="3">{title}</circle>')
        if (mark.x, mark.y) in on_line:
            parts.append(f'<text class="tick" x="{at[0]}" y="{at[1]}" dx="6" dy="-4">{text}</text>')
    return "".join(parts)


def legend(entries: Iterable[tuple[int, str]], target: str | None = None) -> str:
    """How lines look, by position, and what they are; the same for a panel's target."""
    keys = [(f' class="{colour_of(position)}"', f"curve{dashes_of(position)}", text) for position, text in entries]
    if target is not None:
        keys.append(("", "target", target))
    items = "".join(
        f'<li{colour}><svg viewBox="0 0 36 12" aria-hidden="true">'
        f'<line class="{kind}" x1="1" x2="35" y1="6" y2="6"/></svg>{escape(text)}</li>'
        for colour, kind, text in keys
    )
    return f'<ul class="legend">{items}</ul>'


def colour_of(position: int) -> str:
    """Class of the style sheet that sets the colour."""
    return f"k{style(position)[0]}" if position else "ink"


def dashes_of(position: int) -> str:
    """Further class of a curve."""
    return f" d{style(position)[1]}" if position else " strong"


def is_logarithmic(values: Sequence[Number]) -> bool:
    return bool(values) and max(values) > LOG_RATIO * min(values) > 0


def linear_ticks(low: Number, high: Number, most: int) -> list[float]:
    """Round values between two ends, at most `most` and one."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def tick_texts(ticks: Sequence[Number]) -> list[str]:
    """All with as many decimals as the longest needs."""
    shortest = [f"{tick:.10g}" for tick in ticks]
    decimals = max((len(text.partition(".")[2]) for text in shortest if "e" not in text), default=0)
    return [f"{tick:.{decimals}f}" if "e" not in text else text for tick, text in zip(ticks, shortest, strict=True)]


def log_ticks(low: Number, high: Number) -> list[float]:
    """Round values between two natural logarithms: 1, 2, 5, 10, .., or fewer where they would crowd."""
    powers = range(math.floor(low / math.log(10)), math.ceil(high / math.log(10)) + 1)
    for factors in ((1, 2, 5), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low <= math.log(tick) <= high]
        if len(ticks) <= 6:
            return ticks
    return ticks[:: math.ceil(len(ticks) / 6)]
