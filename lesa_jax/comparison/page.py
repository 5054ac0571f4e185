"""report.html of a comparison."""

import math
from collections.abc import Sequence
from html import escape

from lesa_jax.comparison.curves import perplexity
from lesa_jax.comparison.forgetting import Forgetting
from lesa_jax.comparison.frontier import Frontier
from lesa_jax.comparison.result import Comparison
from lesa_jax.comparison.rows import Row
from lesa_jax.comparison.score_table import score_heads, score_lines, score_meanings, score_note
from lesa_jax.comparison.statistics import Statistics
from lesa_jax.comparison.table import CHANCE_HEADINGS, Column, chance_lines, ordered, shown, split_columns
from lesa_jax.comparison.verdict import join, named, notes, summary, verdict
from lesa_jax.planning.methods import METHODS
from lesa_jax.reports import html
from lesa_jax.reports.charts import Axis, Dot, Mark, Series, dot_chart, is_logarithmic, legend, line_panel
from lesa_jax.reports.html import definitions, plus_minus
from lesa_jax.reports.numbers import mean_sd, number, scale

PANELS = {"tokens": "Against tokens", "flops": "Against operations", "seconds": "Against wall-clock time"}


def page(statistics: Statistics) -> str:
    """The whole of report.html; whatever comes from outside is escaped."""
    comparison = statistics.comparison
    parts = [
        "<h1>Growth methods compared</h1>",
        f"<p>{escape(summary(statistics))}</p>",
        f'<p class="verdict">{plus_minus(verdict(statistics))}</p>',
        *(f"<p>{plus_minus(note)}</p>" for note in notes(statistics)),
        f"<h2>Results</h2>{results(statistics)}",
        scores_section(statistics),
        chance_section(statistics),
        failures(statistics),
        f"<h2>Perplexity before training</h2>\n{initial_chart(statistics)}",
        curves_section(statistics) if statistics.is_trained else "",
        forgetting_section(statistics),
        rates_section(statistics),
        methods_section(statistics),
        f"<h2>Columns</h2>{definitions((column.heading, column.meaning) for column in shown(statistics))}",
        f"<h2>How it was measured</h2>{definitions(facts(comparison))}",
    ]
    return html.page(f"Growth methods compared: {comparison.model}", "\n".join(filter(None, parts)))


def results(statistics: Statistics) -> str:
    """The table for people; every cell carries the value that it is sorted by. Where new layers are stands below a
    method's name: on a telephone the first columns are all that is seen."""
    differing, alike = split_columns(statistics)
    columns = [column for column in differing if column.key != "placement"]
    lines = [
        html.Line(
            [(cell_text(column, row), getattr(row, column.key)) for column in columns],
            "failed" if row.error else "base" if row.method == "base" else "",
        )
        for row in ordered(statistics)
    ]
    grown = next((row for row in statistics.rows if row.method != "base"), None)
    same = [f"{column.heading} {column.text(grown)}" for column in alike if grown and column.text(grown) != "-"]
    note = f'<p class="note">Alike in all grown models: {plus_minus(", ".join(same))}.</p>' if same else ""
    return html.table("Results", [html.Heading(column.heading, column.word) for column in columns], lines) + note


def cell_text(column: Column, row: Row) -> str:
    """In two lines, where one would make the table wider than a screen."""
    if column.key == "name":
        return column.text(row) if row.placement == "-" else f"{column.text(row)}\n{row.placement}"
    return column.text(row) if column.word else column.text(row).replace(" (", "\n(")


def scores_section(statistics: Statistics) -> str:
    """Scores on tasks, before training and after."""
    if not statistics.tasks:
        return ""
    headings = [html.Heading(name, name == "method") for name in score_heads(statistics)]
    lines = [html.Line(cells, "" if i else "base") for i, cells in enumerate(score_lines(statistics))]
    meanings = definitions(score_meanings(statistics))
    return f'<h2>Tasks</h2><p class="note">{score_note(statistics)}</p>{html.table("Tasks", headings, lines)}{meanings}'


def chance_section(statistics: Statistics) -> str:
    """How far rows lie from what they are held against, and whether that may be chance."""
    lines = [html.Line(cells) for cells in chance_lines(statistics)]
    if not lines:
        return ""
    headings = [html.Heading(name, name in ("method", "held against", "chance")) for name in CHANCE_HEADINGS]
    return f"<h2>Is it chance?</h2>{html.table('Differences', headings, lines)}{definitions(CHANCE_HEADINGS.items())}"


def methods_section(statistics: Statistics) -> str:
    """Each method in a line."""
    names = dict.fromkeys(name for row in ordered(statistics) for name in (row.method, *row.also) if name in METHODS)
    return f"<h2>Methods</h2>{definitions((name, METHODS[name].summary) for name in names)}" if names else ""


def failures(statistics: Statistics) -> str:
    """The rows that something is wrong with, and what."""
    wrong = [(f"{row.name} ({row.placement})", row.error) for row in statistics.rows if row.error]
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
        "text of what was known": comparison.retain_text,
        "training text": comparison.train_data,
        "training tokens": None if comparison.train_tokens is None else f"{comparison.train_tokens:,}",
        "trained": comparison.trained,
        "seeds": ", ".join(map(str, comparison.seeds)),
        "command": comparison.command,
        "versions": ", ".join(f"{name} {version}" for name, version in comparison.versions.items()),
    }
    return [(name, value) for name, value in values.items() if value]


def initial_chart(statistics: Statistics) -> str:
    """A dot for each outcome on a common axis."""
    dots = [
        Dot(
            statistics.labels[start.position],
            start.mean,
            start.lowest,
            start.highest,
            text=mean_sd(start.mean, start.sd),
            reference=start.position == 0,
        )
        for start in statistics.starts
    ]
    if not dots:
        return "<p>Nothing was measured.</p>"
    kind = (
        ", on a logarithmic axis" if is_logarithmic([end for dot in dots for end in (dot.lowest, dot.highest)]) else ""
    )
    note = f"Lower is better{kind}. Dotted line: base. Bars reach from the lowest seed to the highest."
    return f'<p class="note">{note}</p>{dot_chart(dots)}'


def curves_section(statistics: Statistics) -> str:
    """Three panels with one legend, in the order of the ends."""
    ends = {i: statistics.rows[i].perplexity for i in statistics.curves}
    entries = [
        (i, f"{statistics.labels[i]} ({'not finite' if end is None else number(end)})")
        for i, end in sorted(ends.items(), key=lambda item: math.inf if item[1] is None else item[1])
    ]
    keys = legend(entries, None if statistics.base_loss is None else "base before training")
    note = "Held-out loss in nats per token, mean over seeds; bands are one standard deviation. "
    note += "In brackets the perplexity at the end, the lowest first."
    above = named(statistics, statistics.loss_range.above)
    if above:
        note += f" Above the upper edge when training starts: {join(above)}."
    panels = "".join(panel(statistics, name) for name in PANELS)
    return f'<h2>During training</h2><p class="note">{escape(note)}</p>{keys}<div class="panels">{panels}</div>'


def forgetting_section(statistics: Statistics) -> str:
    """What is learned against what is forgotten: along training, and a curve for each method."""
    forgetting = statistics.forgetting
    if not forgetting.training:
        return ""
    note = "Held-out loss on the new text against that on what was known, in nats per token; better is down and left. "
    note += "A line begins where training does."
    keys = legend([(i, statistics.labels[i]) for i in forgetting.training], "base before training, of what was known")
    series = [Series(statistics.labels[i], i, line.learned, line.retained) for i, line in forgetting.training.items()]
    panel = losses_panel("training", "During training", series, forgetting, forgetting.base)
    section = f'<h2>Learning and forgetting</h2><p class="note">{note}</p>{keys}<div class="panels">{panel}</div>'
    return section + frontiers(forgetting)


def frontiers(forgetting: Forgetting) -> str:
    """Trainings that cost the same, a curve for each method."""
    found = [one for one in forgetting.frontiers if one.has_curves]
    if not found:
        return ""
    note = "A dot is a training, by its learning rate and share of replay. A method's curve goes through those that "
    note += "none of its others beats in both losses. Ringed: on the frontier of all methods."
    known = {name: one.look(name) for one in found for name in one.methods}
    keys = legend([(position, name) for name, position in known.items()], "base before training, of what was known")
    panels = "".join(
        losses_panel(f"frontier{number}", one.title.capitalize(), frontier_series(one), one, forgetting.base)
        for number, one in enumerate(found)
    )
    return f'<p class="note">{note}</p>{keys}<div class="panels">{panels}</div>'


def frontier_series(found: Frontier) -> list[Series]:
    series = []
    for name, spots in found.methods.items():
        curve = found.curves[name]
        marks = [Mark(spot.learned, spot.retained, spot.label, spot in found.best) for spot in spots]
        x, y = [spot.learned for spot in curve], [spot.retained for spot in curve]
        series.append(Series(name, found.look(name), x, y, marks=marks))
    return series


def losses_panel(
    key: str, title: str, series: Sequence[Series], shown: Forgetting | Frontier, base: float | None
) -> str:
    learned = Axis(shown.learned.low, shown.learned.high, "loss on the new text")
    what = f"Loss on what was known against loss on the new text: {title.lower()}"
    retained = Axis(shown.retained.low, shown.retained.high)
    return line_panel(f"forgetting{key}", title, what, series, learned, retained, base)


def rates_section(statistics: Statistics) -> str:
    """Where the learning rates come from: a line for each row, a column for each rate that any row tried."""
    swept = [(i, outcome) for i, outcome in enumerate(statistics.comparison.outcomes) if outcome.sweep]
    if not swept:
        return ""
    rates = sorted({run.learning_rate for _, outcome in swept for run in outcome.sweep})
    lines = []
    for i, outcome in swept:
        ends = {run.learning_rate: math.inf if run.loss is None else perplexity(run.loss) for run in outcome.sweep}
        cells: list[tuple[str, object]] = [(statistics.labels[i], statistics.labels[i])]
        cells += [rate_cell(ends.get(rate), rate == outcome.learning_rate) for rate in rates]
        lines.append(html.Line(cells, "" if i else "base"))
    note = "Perplexity at the end of short runs at each rate; the row was then trained at the one that is marked *."
    headings = [html.Heading("method", word=True), *(html.Heading(f"{rate:g}") for rate in rates)]
    return f'<h2>Learning rates</h2><p class="note">{note}</p>{html.table("Learning rates", headings, lines)}'


def rate_cell(end: float | None, chosen: bool) -> tuple[str, object]:
    """Of a rate that was not tried, that diverged, or that ended at a perplexity."""
    if end is None or not math.isfinite(end):
        return "-" if end is None else "diverged", None
    return number(end) + ("*" if chosen else ""), end


def panel(statistics: Statistics, name: str) -> str:
    """Loss against tokens, flops or seconds; nothing where that was not measured."""
    end = getattr(statistics.spent, name)
    if not end:
        return ""
    divisor, unit = scale(end, name)
    series = []
    for i, curve in statistics.curves.items():
        # A run of very few steps knows no speed, and with it no time.
        points = [point for point in curve if math.isfinite(getattr(point, name))]
        x, y, band = [getattr(point, name) for point in points], [p.loss for p in points], [p.sd for p in points]
        series.append(Series(statistics.labels[i], i, x, y, band))
    low, high, _ = statistics.loss_range
    title = PANELS[name]
    what = f"Held-out loss: {title.lower()}"
    return line_panel(name, title, what, series, Axis(0.0, end, unit, divisor), Axis(low, high), statistics.base_loss)
