"""report.html of a comparison: one file that needs no network, in light and dark, for any width.

Whatever comes from outside is escaped, and a content security policy allows nothing but the style sheet and the script
that stand here, by their hashes. The script only sorts the table.
"""

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from html import escape

from lesa_jax.comparison_report import (
    DASHES,
    PALETTE,
    UNITS,
    Comparison,
    MeanCurve,
    Row,
    base_loss,
    initial_points,
    is_logarithmic,
    is_trained,
    labels,
    largest,
    loss_range,
    mean_curve,
    rows,
    scale,
    style,
)
from lesa_jax.comparison_table import COLUMNS, join, mean_sd, number, ordered, shown, summary, verdict

# PALETTE for dark paper.
DARK = ("#3b9fe0", "#f07b2e", "#22b98a", "#e29bc4", "#8fd0f7", "#f2b632", "#b5985a", "#a48bea")

WIDTH, HEIGHT = 380, 290  # of a panel, in units of the SVG: about a pixel on a telephone
LEFT, RIGHT, TOP, BOTTOM = 46, 372, 8, 254  # of the plot inside

STYLE = (
    """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2126; --soft: #5a636d; --line: #d9dde1; --band: #f4f6f8;
  --bad: #b3261e; LIGHT }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e8eaed; --soft: #a2abb4; --line: #373d44;
  --band: #1c2024; --bad: #ff8a80; DARK } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(0.9rem, 3vw, 3rem) 3rem; max-width: 100rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 0.75rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 0.5rem; }
p { margin: 0.5rem 0; max-width: 75ch; }
.verdict { font-size: 1.1rem; padding: 0.75rem 1rem; border-left: 4px solid var(--k0); background: var(--band);
  max-width: 85ch; }
.note { color: var(--soft); font-size: 0.9rem; }
dl { display: grid; grid-template-columns: fit-content(16rem) minmax(0, 1fr); gap: 0.2rem 1.25rem; margin: 0.5rem 0;
  max-width: 95ch; }
dt { color: var(--soft); } dd { margin: 0; }
pre { margin: 0; font: 0.9rem/1.5 ui-monospace, monospace; white-space: pre-wrap; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; max-width: max-content; }
.scroll:focus-visible { outline: 2px solid var(--k0); }
table { border-collapse: collapse; font-size: 0.92rem; overflow-wrap: break-word; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { background: var(--band); vertical-align: bottom; white-space: normal; }
tbody tr:last-child > * { border-bottom: 0; }
tbody th { position: sticky; left: 0; background: var(--paper); font-weight: 600; }
th:first-child, .word { text-align: left; }
tbody th { min-width: 8rem; }
tbody th, td.word { white-space: normal; max-width: 16rem; }
tr.base > * { background: var(--band); }
tr.failed > * { color: var(--bad); }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--k0); outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
svg { display: block; width: 100%; overflow: visible; }
.dots { list-style: none; padding: 0; margin: 0.75rem 0 0; max-width: 62rem; font-size: 0.92rem; }
.dots li { display: grid; grid-template-columns: minmax(6rem, 26%) minmax(0, 1fr) 9rem; gap: 0.75rem;
  align-items: center; }
.dots svg { height: 1.9rem; } .dots .value { text-align: right;
  font-variant-numeric: tabular-nums; }
.dots .axis, .tick { fill: var(--soft); font-size: 0.75rem; } .tick { font-size: 12px; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1.25rem; }
figure { margin: 0.75rem 0; } figcaption { font-weight: 600; font-size: 0.95rem; margin-bottom: 0.25rem; }
.grid { stroke: var(--line); stroke-width: 1; }
.target { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 2 3; }
.dot { fill: var(--c); } .seeds { stroke: var(--c); stroke-width: 5; stroke-linecap: round; opacity: 0.35; }
.curve { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; } .strong { stroke-width: 3; }
.band { fill: var(--c); opacity: 0.16; }
g:hover > .curve { stroke-width: 4; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0.25rem 1.5rem; padding: 0; margin: 0.75rem 0;
  font-size: 0.92rem; }
.legend li { display: flex; gap: 0.5rem; align-items: center; }
.legend svg { width: 2.4rem; height: 0.8rem; flex: none; }
.ink { --c: var(--ink); } COLOURS DASHES
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 0.5rem; }
  .dots li { grid-template-columns: 1fr max-content; gap: 0 0.75rem; padding-bottom: 0.35rem; }
  .dots .value { grid-area: 1 / 2; }
  .dots li svg { grid-column: 1 / 3; } .dots svg { height: 1.3rem; } .dots .blank { display: none; } }
""".replace("LIGHT", " ".join(f"--k{i}: {colour};" for i, colour in enumerate(PALETTE)))
    .replace("DARK", " ".join(f"--k{i}: {colour};" for i, colour in enumerate(DARK)))
    .replace("COLOURS", " ".join(f".k{i} {{ --c: var(--k{i}); }}" for i in range(len(PALETTE))))
    .replace(
        "DASHES", " ".join(f".d{i} {{ stroke-dasharray: {' '.join(map(str, d))}; }}" for i, d in enumerate(DASHES) if d)
    )
)

SCRIPT = """
for (const head of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    const body = head.closest("table").tBodies[0];
    const value = row => row.cells[head.cellIndex].dataset.value;
    const compare = (a, b) => a === "" || b === "" ? (a === "") - (b === "")
      : (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (down ? -1 : 1);
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
  });
}
"""


def page(comparison: Comparison) -> str:
    """The whole of report.html."""
    allowed = f"default-src 'none'; style-src '{digest(STYLE)}'; script-src '{digest(SCRIPT)}'; base-uri 'none'"
    table = rows(comparison)
    parts = [
        "<h1>Growth methods compared</h1>",
        f"<p>{escape(summary(comparison))}</p>",
        f'<p class="verdict">{plus_minus(verdict(comparison))}</p>',
        f'<h2>Results</h2><div class="scroll" tabindex="0" role="region" aria-label="Results">{results(table)}</div>',
        failures(table),
        "<h2>Perplexity before training</h2>",
        initial_chart(comparison),
        curves_section(comparison) if is_trained(comparison) else "",
        f"<h2>Columns</h2>{definitions((c.heading, c.meaning) for c in COLUMNS if shown(c, table))}",
        f"<h2>How it was measured</h2>{definitions(facts(comparison))}",
    ]
    body = "\n".join(filter(None, parts))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<title>{escape(f"Growth methods compared: {comparison.model}")}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
<script>{SCRIPT}</script>
</body>
</html>
"""


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def results(table: Sequence[Row]) -> str:
    """The table for people; every cell carries the value that it is sorted by."""
    columns = [column for column in COLUMNS if shown(column, table)]
    head = "".join(f'<th scope="col"{word(c.key)}>{c.heading}</th>' for c in columns)
    lines = []
    for row in ordered(table):
        kind = ' class="failed"' if row["error"] else ' class="base"' if row["method"] == "base" else ""
        cells = []
        for column in columns:
            value = row.get(column.key)
            text = plus_minus(column.text(row))
            tag = 'th scope="row"' if column.key == "method" else "td"
            value = escape("" if value is None else str(value))
            cells.append(f'<{tag}{word(column.key)} data-value="{value}">{text}</{tag.split()[0]}>')
        lines.append(f"<tr{kind}>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def plus_minus(text: str) -> str:
    return escape(text.replace(" +- ", " ± "))


def word(key: str) -> str:
    return ' class="word"' if key in ("method", "placement") else ""


def failures(table: Sequence[Row]) -> str:
    """The rows that something is wrong with, and what."""
    wrong = [(f"{row['method']} ({row['placement']})", row["error"]) for row in table if row["error"]]
    return f"<h2>What went wrong</h2>{definitions(wrong)}" if wrong else ""


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs)
    return f"<dl>{items}</dl>"


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """What one needs to repeat it."""
    values = {
        "model": comparison.model,
        "held-out text": comparison.text,
        "protocol": {
            "corpus": "corpus: exponential of the mean loss per token of the whole text",
            "line": "line: mean over lines of the exponential of the line's loss",
        }.get(comparison.protocol, comparison.protocol),
        "sequence length": f"{comparison.sequence_length} tokens",
        "training text": comparison.train_data,
        "training tokens": None if comparison.train_tokens is None else f"{comparison.train_tokens:,}",
        "trained": comparison.trained,
        "seeds": ", ".join(map(str, comparison.seeds)),
        "command": comparison.command,
        "versions": ", ".join(f"{name} {version}" for name, version in comparison.versions.items()),
    }
    return [(name, value) for name, value in values.items() if value]


def initial_chart(comparison: Comparison) -> str:
    """A dot for each outcome on a common axis. Rows are HTML, so that names wrap; only the marks are SVG."""
    points = initial_points(comparison)
    if not points:
        return "<p>Nothing was measured.</p>"
    names, table = labels(comparison), rows(comparison)
    values = [value for i, _ in points for value in comparison.outcomes[i].initial]
    logarithmic = is_logarithmic(values)
    low, high = (math.log(min(values)), math.log(max(values))) if logarithmic else (min(values), max(values))
    margin = 0.04 * (high - low) or 0.5
    low, high = low - margin, high + margin

    def place(value: float) -> str:
        return f"{100 * ((math.log(value) if logarithmic else value) - low) / (high - low):.2f}%"

    ticks = log_ticks(low, high) if logarithmic else linear_ticks(low, high, 5)
    grid = "".join(f'<line class="grid" x1="{place(t)}" x2="{place(t)}" y1="0" y2="100%"/>' for t in ticks)
    base = next((mean for i, mean in points if i == 0), None)
    if base is not None:
        grid += f'<line class="target" x1="{place(base)}" x2="{place(base)}" y1="0" y2="100%"/>'
    lines = []
    for i, mean in points:
        seeds = comparison.outcomes[i].initial
        marks = f'<line class="seeds" x1="{place(min(seeds))}" x2="{place(max(seeds))}" y1="50%" y2="50%"/>'
        marks += f'<circle class="dot" cx="{place(mean)}" cy="50%" r="5"/>'
        sd = table[i]["initial_sd"]
        value = plus_minus(mean_sd(mean, sd))
        lines.append(
            f'<li class="{"ink" if i == 0 else "k0"}"><span>{escape(names[i])}</span>'
            f'<svg aria-hidden="true">{grid}{marks}</svg><span class="value">{value}</span></li>'
        )
    axis = "".join(
        f'<text class="axis" x="{place(t)}" y="1rem" text-anchor="middle">{text}</text>'
        for t, text in zip(ticks, tick_texts(ticks), strict=True)
    )
    lines.append(
        f'<li aria-hidden="true"><span class="blank"></span><svg>{axis}</svg><span class="value blank"></span></li>'
    )
    kind = ", on a logarithmic axis" if logarithmic else ""
    note = f"Lower is better{kind}. Dotted line: base. Bars reach from the lowest seed to the highest."
    return f'<p class="note">{note}</p><ol class="dots">{"".join(lines)}</ol>'


def curves_section(comparison: Comparison) -> str:
    """Three panels with one legend, in the order of the ends."""
    curves = {i: curve for i, o in enumerate(comparison.outcomes) if len(curve := mean_curve(o.curves)) > 1}
    names = labels(comparison)
    _, _, above = loss_range(comparison)
    panels = "".join(panel(comparison, curves, name) for name in UNITS)
    keys = []
    ends = [row["perplexity"] for row in rows(comparison)]
    for i in sorted(curves, key=lambda i: math.inf if ends[i] is None else ends[i]):
        end = "not finite" if ends[i] is None else number(ends[i])
        keys.append(
            f'<li class="{colour_of(i)}"><svg viewBox="0 0 36 12" aria-hidden="true">'
            f'<line class="curve{dashes_of(i)}" x1="1" x2="35" y1="6" y2="6"/></svg>{escape(names[i])} ({end})</li>'
        )
    if base_loss(comparison) is not None:
        line = '<line class="target" x1="1" x2="35" y1="6" y2="6"/>'
        keys.append(f'<li><svg viewBox="0 0 36 12" aria-hidden="true">{line}</svg>base before training</li>')
    note = "Held-out loss in nats per token, mean over seeds; bands are one standard deviation. "
    note += "In brackets the perplexity at the end, the lowest first."
    if above:
        note += f" Above the upper edge when training starts: {join([names[i] for i in above])}."
    return (
        f'<h2>During training</h2><p class="note">{escape(note)}</p><ul class="legend">{"".join(keys)}</ul>'
        f'<div class="panels">{panels}</div>'
    )


def colour_of(position: int) -> str:
    return f"k{style(position)[0]}" if position else "ink"


def dashes_of(position: int) -> str:
    return f" d{style(position)[1]}" if position else " strong"


def panel(comparison: Comparison, curves: dict[int, MeanCurve], name: str) -> str:
    """Loss against tokens, flops or seconds, as SVG; nothing where the axis was not measured."""
    end = largest(comparison, name)
    if not end:
        return ""
    low, high, _ = loss_range(comparison)
    names = labels(comparison)
    divisor, unit = scale(end, name)

    def x(value: float | int) -> str:
        return f"{LEFT + (RIGHT - LEFT) * value / end:.1f}"

    def y(loss: float) -> str:
        return f"{BOTTOM - (BOTTOM - TOP) * (loss - low) / (high - low):.1f}"

    marks = []
    ticks = linear_ticks(low, high, 6)
    for tick, text in zip(ticks, tick_texts(ticks), strict=True):
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>')
        marks.append(f'<text class="tick" x="{LEFT - 6}" y="{y(tick)}" dy="4" text-anchor="end">{text}</text>')
    ticks = linear_ticks(0.0, end / divisor, 5)
    for tick, text in zip(ticks, tick_texts(ticks), strict=True):
        at = x(tick * divisor)
        marks.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{BOTTOM}" y2="{BOTTOM + 4}"/>')
        marks.append(f'<text class="tick" x="{at}" y="{BOTTOM + 17}" text-anchor="middle">{text}</text>')
    marks.append(f'<text class="tick" x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 3}" text-anchor="middle">{unit}</text>')
    marks.append(
        f'<clipPath id="in-{name}"><rect x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" height="{BOTTOM - TOP}"/>'
    )
    marks.append(f'</clipPath><g clip-path="url(#in-{name})">')
    target = base_loss(comparison)
    if target is not None:
        marks.append(f'<line class="target" x1="{LEFT}" x2="{RIGHT}" y1="{y(target)}" y2="{y(target)}"/>')
    for i, curve in reversed(curves.items()):  # base on top
        upper = [f"{x(getattr(point, name))},{y(point.loss + sd)}" for point, sd in curve]
        lower = [f"{x(getattr(point, name))},{y(point.loss - sd)}" for point, sd in reversed(curve)]
        line = " ".join(f"{x(getattr(point, name))},{y(point.loss)}" for point, _ in curve)
        band = f'<polygon class="band" points="{" ".join(upper + lower)}"/>' if any(sd for _, sd in curve) else ""
        marks.append(
            f'<g class="{colour_of(i)}"><title>{escape(names[i])}</title>{band}'
            f'<polyline class="curve{dashes_of(i)}" points="{line}"/></g>'
        )
    title = {"tokens": "Against tokens", "flops": "Against operations", "seconds": "Against wall-clock time"}[name]
    return (
        f'<figure><figcaption>{title}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Held-out loss: {title.lower()}">{"".join(marks)}</g></svg></figure>'
    )


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
