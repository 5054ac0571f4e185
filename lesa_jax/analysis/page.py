"""report.html of an analysis."""

from collections.abc import Sequence
from html import escape

from lesa_jax.analysis.panels import Panel, text_panels, weight_panels
from lesa_jax.analysis.result import Analysis
from lesa_jax.analysis.verdict import verdict
from lesa_jax.analysis.weights import KindMeasures
from lesa_jax.reports import html
from lesa_jax.reports.charts import Axis, Series, legend, line_panel
from lesa_jax.reports.html import definitions

MEANINGS = {
    "angle": "Radians by which the layer turns the residual stream, mean over tokens.",
    "influence": "One minus the cosine of the stream before and behind it (Block Influence).",
    "importance": "What the loss gains, nats a token, when all tokens pass the layer by.",
    "effect on output": "Largest change of predicted probabilities at later tokens when earlier ones pass it by.",
    "contribution": "Length of what it adds over that of the stream.",
    "lens": "Divergence of what the stream before it predicts from what the model predicts, nats.",
    "overlap": "Share of the five likeliest tokens that both have in common.",
}
OF_KINDS = {
    "norm": "Frobenius norm, mean over layers (and experts).",
    "stable rank": "Its square over that of the largest singular value: how many such directions make up a matrix.",
    "error from neighbours": "Squared error of the best multiple of the sum of the layers below and above, over that "
    "of predicting zero, mean over layers.",
    "LESA's error": "Squared error of LESA's own network on layers that it was not taught, over that of predicting "
    "zero.",
    "scaled": "The same of its predictions times the factor that suits them best: at most 1.",
    "continuity": "Rank correlation of depth with the order of layers along the shortest path through their "
    "coefficients of the largest direction that all share.",
    "shuffled": "The same of layers with shuffled numbers: 95 % lie below.",
    "p": "Share of shuffled ones that correlate as much.",
    "neighbours' cosine": "Of these coefficients, mean over neighbouring layers.",
}


def page(found: Analysis) -> str:
    """The whole of report.html; whatever comes from outside is escaped."""
    sentences = "".join(f'<p class="verdict">{escape(sentence)}</p>' for sentence in verdict(found))
    note = f"{found.model}, {found.tokens:,} tokens of {found.text}"
    note += "" if found.base is None else f"; beside it {found.base.model}, from which it was grown"
    parts = [
        "<h1>What the layers do</h1>",
        f"<p>{escape(note)}</p>",
        f"<h2>Layer by layer</h2>{key(found)}{drawn(text_panels(found))}",
        f"<h2>In words</h2>{sentences}",
        f"<h2>Numbers</h2>{numbers(found)}",
        "" if found.base is None else f"<h2>Numbers of base</h2>{numbers(found.base)}",
        f"<h2>Columns</h2>{definitions(MEANINGS.items())}",
        f"<h2>Matrices</h2>{drawn(weight_panels(found))}{kinds(found.weights)}",
        f"<h2>Columns of matrices</h2>{definitions(OF_KINDS.items())}",
    ]
    return html.page(f"What the layers do: {found.model}", "\n".join(filter(None, parts)))


def key(found: Analysis) -> str:
    """What marks and dashes mean, where there are any."""
    words = ["Grey bands: new layers."] if found.new else []
    words += ["Dashed: base, each layer where it stands in the grown model."] if found.base is not None else []
    return f'<p class="note">{" ".join(words)}</p>' if words else ""


def drawn(panels: Sequence[Panel]) -> str:
    return f'<div class="panels">{"".join(map(draw, panels))}</div>'


def draw(panel: Panel) -> str:
    """A panel of lines, with its legend."""
    series = [Series(line.name, line.position, line.x, line.y) for line in panel.lines]
    name = "".join(letter for letter in panel.title.lower() if letter.isalnum())
    across, upright = Axis(*panel.across, panel.unit), Axis(*panel.upright)
    chart = line_panel(name, panel.title, panel.title, series, across, upright, marked=panel.marked)
    note = f'<p class="note">{escape(panel.beyond)}</p>' if panel.beyond else ""
    return f"<div>{chart}{legend([(line.position, line.name) for line in panel.lines])}{note}</div>"


def numbers(found: Analysis) -> str:
    marks = [html.Heading("new", word=True)] if found.new else []
    headings = [html.Heading("layer"), *marks, *(html.Heading(name) for name in MEANINGS)]
    lines = []
    for number, layer in enumerate(found.measured.layers):
        values = (
            layer.angle,
            layer.block_influence,
            float(found.measured.importance[number]),
            float(found.measured.effects.output[number]),
            layer.contribution,
            layer.lens_kl,
            layer.lens_overlap,
        )
        new = "new" if number in found.new else ""
        marked = [(new, new)] if found.new else []
        lines.append(html.Line([(str(number), number), *marked, *map(cell, values)]))
    return html.table("Layers", headings, lines)


def kinds(weights: Sequence[KindMeasures]) -> str:
    headings = [html.Heading("kind", word=True), *(html.Heading(name) for name in OF_KINDS)]
    lines = []
    for kind in weights:
        errors = [error for error in kind.neighbour_error if error is not None]
        values = [mean(kind.norm), mean(kind.stable_rank), mean(errors) if errors else None]
        own = kind.prediction
        values += [None, None] if own is None else [own.error, own.scaled_error]
        line = kind.continuity
        order = [None] * 4 if line is None else [line.correlation, line.null_95, line.p, line.adjacent_cosine]
        lines.append(html.Line([(kind.kind, kind.kind), *map(cell, [*values, *order])]))
    return html.table("Matrices", headings, lines)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def cell(value: float | None) -> tuple[str, float | None]:
    """As text, and what it is sorted by."""
    return "-" if value is None else f"{value:.4g}", value
