"""The page of a report: one HTML file that needs no network, in light and dark, for any width.

A content security policy allows nothing but the style sheet and the script that stand here, by their hashes. The script
only sorts tables. Functions that take text escape it.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from lesa_jax.reports.palette import DARK, DASHES, PALETTE

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
td small, th small { display: block; font-weight: 400; color: var(--soft); }
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
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1.25rem; }
figure { margin: 0.75rem 0; } figcaption { font-weight: 600; font-size: 0.95rem; margin-bottom: 0.25rem; }
.grid { stroke: var(--line); stroke-width: 1; }
.target { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 2 3; }
.ring { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.mark { stroke: var(--soft); stroke-width: 7; opacity: 0.16; }
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


def page(title: str, body: str) -> str:
    """A whole file.

    Args:
      title: as text.
      body: as HTML, in which whatever comes from outside is escaped.
    """
    allowed = f"default-src 'none'; style-src '{digest(STYLE)}'; script-src '{digest(SCRIPT)}'; base-uri 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{allowed}">
<title>{escape(title)}</title>
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


def plus_minus(text: str) -> str:
    return escape(text.replace(" +- ", " ± "))


def lines_of(text: str) -> str:
    """Of a cell: what stands below its first line is small."""
    first, _, below = text.partition("\n")
    return plus_minus(first) + (f"<small>{plus_minus(below)}</small>" if below else "")


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what they mean."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs)
    return f"<dl>{items}</dl>"


@dataclass(frozen=True)
class Heading:
    """Of a table's column; `word` if what stands below is words, not numbers."""

    text: str
    word: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
      cells: for each column the text, whose second line is small, and the value that the column is sorted by; None
        comes last.
      kind: "base" and "failed" look different.
    """

    cells: Sequence[tuple[str, object]]
    kind: str = ""


def table(name: str, headings: Sequence[Heading], lines: Iterable[Line]) -> str:
    """A table that readers sort by any column, and scroll where it is too wide; the first column names the lines."""
    words = [' class="word"' if heading.word else "" for heading in headings]
    tags = [("th", ' scope="row"'), *[("td", "")] * (len(headings) - 1)]
    columns = zip(words, headings, strict=True)
    head = "".join(f'<th scope="col"{word}>{escape(heading.text)}</th>' for word, heading in columns)
    rows = []
    for line in lines:
        cells = [
            f'<{tag}{scope}{word} data-value="{"" if value is None else escape(str(value))}">{lines_of(text)}</{tag}>'
            for (tag, scope), word, (text, value) in zip(tags, words, line.cells, strict=True)
        ]
        kind = f' class="{line.kind}"' if line.kind else ""
        rows.append(f"<tr{kind}>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
