"""report.html of a comparison: one file that needs no network, in light and dark, for any width.

Whatever comes from outside is escaped, and a content security policy allows nothing but the style sheet and the script
that stand here, by their hashes. The script only sorts the table.
"""

import math
from collections.abc import Sequence
from html import escape

from lesa_jax.comparison.result import Comparison, MeanCurve, Row
from lesa_jax.comparison.statistics import (
    base_loss,
    initial_points,
    is_logarithmic,
    is_trained,
    labels,
    largest,
    loss_range,
    mean_curve,
    rows,
)
from lesa_jax.comparison.table import COLUMNS, ordered, shown
from lesa_jax.comparison.verdict import join, summary, verdict
from lesa_jax.reports.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    UNITS,
    WIDTH,
    colour_of,
    dashes_of,
    linear_ticks,
    log_ticks,
    mean_sd,
    number,
    scale,
    tick_texts,
)
from lesa_jax.reports.html import SCRIPT, STYLE, definitions, digest, plus_minus


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


def word(key: str) -> str:
    return ' class="word"' if key in ("method", "placement") else ""


def failures(table: Sequence[Row]) -> str:
    """The rows that something is wrong with, and what."""
    wrong = [(f"{row['method']} ({row['placement']})", row["error"]) for row in table if row["error"]]
    return f"<h2>What went wrong</h2>{definitions(wrong)}" if wrong else ""


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
